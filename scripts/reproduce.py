"""Reproduce the paper preset by preset, with one page: soo-marl reproduce. Run again to continue."""

from soo_marl.cli import script

if __name__ == "__main__":
    script("reproduce")
