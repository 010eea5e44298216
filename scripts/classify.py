"""Classify the agents of a trained study by their self-other overlap: soo-marl classify."""

from soo_marl.cli import script

if __name__ == "__main__":
    script("classify")
