"""What is predicted, and the loss of predicting it."""

from mimsuite.targets.classes import PairMix, soft_cross_entropy, soft_targets
from mimsuite.targets.pixels import PixelTarget

__all__ = ["PairMix", "PixelTarget", "soft_cross_entropy", "soft_targets"]
