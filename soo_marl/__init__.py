"""Self-other overlap in multi-agent reinforcement learning: measure it, classify agents by it, train with it."""

__version__ = "0.1.0"
