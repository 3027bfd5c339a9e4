"""Models from checkpoints of any kind, and models for other libraries."""

from mimsuite.export.architecture import Hints
from mimsuite.export.formats import FORMATS, default_out, export
from mimsuite.export.initialise import initialise
from mimsuite.export.opened import Opened, open_model

__all__ = ["FORMATS", "Hints", "Opened", "default_out", "export", "initialise", "open_model"]
