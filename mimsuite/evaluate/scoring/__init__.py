"""Judging predictions, sample by sample: classes, parts, boxes, voxels, pixels."""
