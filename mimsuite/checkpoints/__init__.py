"""Read models from checkpoints: our runs, published layouts, and `--init-from`."""

from mimsuite.checkpoints.initialise import initialise
from mimsuite.checkpoints.opened import Opened, open_model
from mimsuite.checkpoints.shapes import Hints

__all__ = ["Hints", "Opened", "initialise", "open_model"]
