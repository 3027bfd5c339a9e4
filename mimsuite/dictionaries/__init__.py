"""Sparse dictionaries of frozen features: each feature is a weighted sum of a few atoms.

Letters: B rows (one per patch), D width of a feature, C codes, A (C, D) atoms, z (B, C) codes.
"""
