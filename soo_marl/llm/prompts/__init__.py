"""What models are asked: templates, scenarios, pairs of self and other prompts."""
