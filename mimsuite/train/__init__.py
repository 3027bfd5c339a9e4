"""Training: the loop, its state, optimizers, schedules and checkpoints."""
