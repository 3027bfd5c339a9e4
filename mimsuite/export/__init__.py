"""Models for other libraries, as files that they read."""

from mimsuite.export.formats import FORMATS, default_out, export, save_tensors

__all__ = ["FORMATS", "default_out", "export", "save_tensors"]
