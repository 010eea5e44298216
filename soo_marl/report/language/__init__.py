"""Figures and page of a language study."""
