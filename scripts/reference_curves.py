"""Train MADDPG on stock simple_adversary, and draw its learning curves beside the published ones."""

from soo_marl.cli import script

if __name__ == "__main__":
    script("release curves")
