"""A language model: loaded, wrapped with LoRA, its layers, its chat format, its texts."""
