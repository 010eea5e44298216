"""How a model is changed: the organism that deceives, and the treatments against it."""
