"""The masking engine that all modalities share: one mask type, one file per sampler."""

from __future__ import annotations

from mimsuite.config.section import Section
from mimsuite.masking.mask import TokenMask, gather_tokens
from mimsuite.masking.random import RandomSampler
from mimsuite.masking.sampler import Sampler

__all__ = ["RandomSampler", "Sampler", "TokenMask", "build_sampler", "gather_tokens"]

_SAMPLERS: dict[str, type[Sampler]] = {"random": RandomSampler}


def build_sampler(section: Section) -> Sampler:
    """The sampler that a recipe's ``mask`` section describes, by its ``kind``."""
    return _SAMPLERS[section.kind](section)  # type: ignore[attr-defined]
