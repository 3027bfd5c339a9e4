"""The order of training as a pure function of seed, epoch and step."""
