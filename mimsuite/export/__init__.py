"""Models from checkpoints of any kind, and models for other libraries."""

from mimsuite.checkpoints.initialise import initialise
from mimsuite.checkpoints.opened import Opened, open_model
from mimsuite.checkpoints.shapes import Hints
from mimsuite.export.formats import FORMATS, default_out, export

__all__ = ["FORMATS", "Hints", "Opened", "default_out", "export", "initialise", "open_model"]
