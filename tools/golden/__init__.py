"""Checks of the suite against reference tensors that published code computed.

``case`` reads a case, ``compare`` holds the rules, ``build`` makes methods from a case's
hyperparameters, one module per family of kinds computes, and ``run`` judges.
"""
