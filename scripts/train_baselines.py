"""Train honest and deceptive baselines, and measure what they do: soo-marl train. Run again to continue."""

from soo_marl.cli import script

if __name__ == "__main__":
    script("train")
