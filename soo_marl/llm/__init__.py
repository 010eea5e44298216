"""The companion: the same overlap core turns language models honest, with LoRA, and says when it did not."""
