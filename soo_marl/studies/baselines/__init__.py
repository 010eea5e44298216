"""Honest and deceptive agents: trained, watched, told apart by their overlap values."""
