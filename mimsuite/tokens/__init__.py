"""Tokens of each modality: cutting samples into them, and their positions."""

from mimsuite.tokens.image import patchify, unpatchify
from mimsuite.tokens.positions import resize_positions, sincos_2d

__all__ = ["patchify", "resize_positions", "sincos_2d", "unpatchify"]
