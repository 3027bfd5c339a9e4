"""Synthetic samples for :mod:`mimsuite.data.synthetic.synth`, one module for each kind."""
