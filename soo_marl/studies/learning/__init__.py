"""What all studies of agents share: recipes, training phases, checkpoints, curves, agents on disk, episodes."""
