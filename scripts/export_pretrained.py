"""Reduce a finished study to the trained agents that come with the package, for those who make releases."""

from soo_marl.cli import script

if __name__ == "__main__":
    script("release agents")
