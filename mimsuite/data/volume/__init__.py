"""Radiance grids: files, views, and labels (boxes and voxel classes)."""
