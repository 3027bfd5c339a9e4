"""Synthetic samples for :mod:`mimsuite.data.made.synth`, one module for each kind."""
