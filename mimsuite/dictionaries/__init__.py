"""Sparse dictionaries of frozen features: each feature as a sum of few atoms.

Letters: B rows (one a patch), D width of a feature, C codes, A (C, D) the atoms, z (B, C) codes.
"""
