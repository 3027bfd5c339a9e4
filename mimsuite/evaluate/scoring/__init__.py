"""Scorers of trained methods: classes, targets, parts, boxes, voxels, super-resolution."""
