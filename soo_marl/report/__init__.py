"""Figures, animations and the HTML report of a study directory. Nothing statistical is computed here."""
