"""Fine-tuning of trained agents with self-other overlap, beside the controls that it must be held against."""
