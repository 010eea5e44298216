"""Take the deception profiles of a trained study and draw them: soo-marl profile."""

from soo_marl.cli import script

if __name__ == "__main__":
    script("profile")
