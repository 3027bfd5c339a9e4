"""Tokens of each modality: cutting samples into tokens, and position codes."""

from mimsuite.tokens.image import patchify, unnormalized, unpatchify
from mimsuite.tokens.points import Groups, farthest_points, group, nearest
from mimsuite.tokens.positions import resize_positions, sincos_2d, sincos_clip
from mimsuite.tokens.video import (
    fit_clip_positions,
    from_tubelets,
    resize_clip_positions,
    sinusoid_1d,
    tubelets,
)
from mimsuite.tokens.volume import sincos_3d

__all__ = [
    "Groups",
    "farthest_points",
    "fit_clip_positions",
    "from_tubelets",
    "group",
    "nearest",
    "patchify",
    "resize_clip_positions",
    "resize_positions",
    "sincos_2d",
    "sincos_3d",
    "sincos_clip",
    "sinusoid_1d",
    "tubelets",
    "unnormalized",
    "unpatchify",
]
