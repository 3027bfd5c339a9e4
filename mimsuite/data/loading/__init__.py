"""Batches: lanes of a global batch, loaders for training and evaluation."""
