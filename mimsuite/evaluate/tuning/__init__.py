"""Train on labels from a pretrained run, with baselines and a learning-rate search."""
