"""Radiance grids: files, truth of boxes and voxels, views."""
