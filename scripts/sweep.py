"""Train a study at every point of a grid or a random search: soo-marl sweep. Run again to continue."""

from soo_marl.cli import script

if __name__ == "__main__":
    script("sweep")
