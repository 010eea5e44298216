"""Fine-tune the deceptive agents of a trained study with overlap and its controls: soo-marl finetune."""

from soo_marl.cli import script

if __name__ == "__main__":
    script("finetune")
