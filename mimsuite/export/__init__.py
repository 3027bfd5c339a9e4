"""Export of models to the file formats of other libraries."""

from mimsuite.export.formats import FORMATS, default_out, export, save_tensors

__all__ = ["FORMATS", "default_out", "export", "save_tensors"]
