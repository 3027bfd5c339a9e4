"""The masking engine that all modalities share: one mask type, one file per sampler."""

from __future__ import annotations

from mimsuite.config.keys.section import Section
from mimsuite.masking.attentive import AttentiveSampler
from mimsuite.masking.ball import BallSampler
from mimsuite.masking.block import BlockSampler
from mimsuite.masking.clip_blocks import ClipBlockSampler
from mimsuite.masking.cubes import CubeSampler
from mimsuite.masking.mask import TokenMask, gather_tokens
from mimsuite.masking.multi_block import MultiBlockSampler
from mimsuite.masking.random import RandomSampler
from mimsuite.masking.rolled_block import RolledBlockSampler
from mimsuite.masking.sampler import Sampler
from mimsuite.masking.square_blocks import SquareBlockSampler
from mimsuite.masking.squares import SquareSampler
from mimsuite.masking.tube import ClipSampler, SpacetimeSampler, TubeSampler

__all__ = [
    "AttentiveSampler",
    "BallSampler",
    "BlockSampler",
    "ClipBlockSampler",
    "ClipSampler",
    "CubeSampler",
    "MultiBlockSampler",
    "RandomSampler",
    "RolledBlockSampler",
    "Sampler",
    "SpacetimeSampler",
    "SquareBlockSampler",
    "SquareSampler",
    "TokenMask",
    "TubeSampler",
    "build_sampler",
    "gather_tokens",
]

_SAMPLERS: dict[str, type[Sampler]] = {
    "attentive": AttentiveSampler,
    "ball": BallSampler,
    "block": BlockSampler,
    "cubes": CubeSampler,
    "random": RandomSampler,
    "rolled-block": RolledBlockSampler,
    "spacetime": SpacetimeSampler,
    "square-blocks": SquareBlockSampler,
    "squares": SquareSampler,
    "tube": TubeSampler,
}


def build_sampler(section: Section) -> Sampler:
    """The sampler that a recipe's ``mask`` section describes, by its ``kind``."""
    return _SAMPLERS[section.kind](section)  # type: ignore[attr-defined]
