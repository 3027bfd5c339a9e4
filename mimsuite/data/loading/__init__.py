"""Batch loading: lanes of the global batch, and the loaders for training and evaluation."""
