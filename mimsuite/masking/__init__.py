"""The masking engine that all modalities share: one mask type, one file per sampler."""

from mimsuite.masking.mask import TokenMask, gather_tokens
from mimsuite.masking.random import RandomSampler

__all__ = ["RandomSampler", "TokenMask", "gather_tokens"]
