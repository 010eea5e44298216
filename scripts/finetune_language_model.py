"""Fine-tune a language model with self-other overlap and its controls: soo-marl llm finetune."""

from soo_marl.cli import script

if __name__ == "__main__":
    script("llm finetune")
