"""Sample order as a pure function of seed, epoch and step."""
