"""What is predicted, and the loss of predicting it."""

from mimsuite.targets.pixels import PixelTarget

__all__ = ["PixelTarget"]
