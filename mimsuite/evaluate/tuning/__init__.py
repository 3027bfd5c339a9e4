"""Training on labels from a run, with its baselines and learning-rate search."""
