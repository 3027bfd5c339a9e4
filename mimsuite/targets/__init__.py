"""Prediction targets and their losses."""

from mimsuite.pictures.features import FeatureColours, feature_pictures
from mimsuite.targets.chamfer import chamfer
from mimsuite.targets.classes import PairMix, soft_cross_entropy, soft_targets
from mimsuite.targets.consistency import consistency
from mimsuite.targets.deviation import channel_deviation
from mimsuite.targets.features import FeatureTarget
from mimsuite.targets.labels import labels_of
from mimsuite.targets.layers import average_layers
from mimsuite.targets.pixels import PixelTarget
from mimsuite.targets.sinkhorn import balanced_assignments, entropy
from mimsuite.targets.tokenizer_choice import build_tokenizer
from mimsuite.targets.tokenizers import Tokenizer
from mimsuite.targets.tubelets import TubeletTarget

__all__ = [
    "FeatureColours",
    "FeatureTarget",
    "PairMix",
    "PixelTarget",
    "Tokenizer",
    "TubeletTarget",
    "average_layers",
    "balanced_assignments",
    "build_tokenizer",
    "chamfer",
    "channel_deviation",
    "consistency",
    "entropy",
    "feature_pictures",
    "labels_of",
    "soft_cross_entropy",
    "soft_targets",
]
