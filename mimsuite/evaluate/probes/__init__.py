"""Probes of frozen features: linear, nearest neighbours, low-shot, robustness."""
