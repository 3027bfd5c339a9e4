"""Radiance fields: cameras, sampling a field on a grid, fitting a small field to images."""

from mimsuite.fields.cameras import Camera, Cameras, read_cameras
from mimsuite.fields.sample import Grid, export_grid

__all__ = ["Camera", "Cameras", "Grid", "export_grid", "read_cameras"]
