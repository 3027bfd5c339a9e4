"""Models from checkpoints of any kind: our runs, published layouts, `--init-from`."""

from mimsuite.checkpoints.initialise import initialise
from mimsuite.checkpoints.opened import Opened, open_model
from mimsuite.checkpoints.shapes import Hints

__all__ = ["Hints", "Opened", "initialise", "open_model"]
