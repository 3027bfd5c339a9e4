"""Masks never change between versions: a run that is resumed goes on with the masks it began with.

Each digest stands for the ids of masks of three samples at two steps. A change that is meant to
change masks needs a new kind or key, not a new digest.
"""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import torch

from mimsuite.config.keys import masks
from mimsuite.config.keys.rolled_mask import RolledBlockMaskSection
from mimsuite.config.keys.volume import VolumeMaskSection
from mimsuite.masking import ClipBlockSampler, MultiBlockSampler, TokenMask, build_sampler
from mimsuite.noise import Noise

BLOCK = {"kind": "block", "min_block": 4}
SET = {"blocks": 2, "scale": (0.2, 0.4), "time": (0.5, 1.0)}


def digest(made: TokenMask | dict[str, TokenMask]) -> str:
    """Of all ids and their shapes, in the order they are seen."""
    known = hashlib.blake2b(digest_size=6)
    named = made if isinstance(made, dict) else {"": made}
    for name, mask in named.items():
        parts = (mask.visible, mask.masked, mask.decoded, mask.decoded_masked, mask.targets)
        for part in parts:
            ids = None if part is None else part.long().tolist()
            known.update(repr((name, ids)).encode())
    return known.hexdigest()


def sampled(sampler: Any, grid: tuple[int, ...], guide: bool) -> str:
    found = []
    for step in (0, 7):
        noise = Noise(5, step, torch.tensor([3, 0, 11]))
        extra = ()
        if guide:
            groups = grid[0] * (grid[1] if len(grid) > 1 else 1)
            width = (3,) if isinstance(sampler.section, masks.BallMaskSection) else ()
            seen = torch.arange(3 * groups * (3 if width else 1)) * 37 % 101 + 1.0
            extra = (seen.view(3, groups, *width),)
        found.append(digest(sampler.sample(noise, grid, *extra)))
    return " ".join(found)


SAMPLERS: list[tuple[Any, tuple[int, ...], str]] = [
    (masks.RandomMaskSection(ratio=0.75), (7, 5), "36da6b2ad21a c6dcc286f4de"),
    (masks.PartlyDecodedSection(ratio=0.75, decode_ratio=0.3), (7, 5), "4e71c8d282d1 2833302719d6"),
    (masks.AttentiveMaskSection(kind="attentive", ratio=0.6), (6, 5), "8aea6f17cfae ef8c78716228"),
    (masks.SquareMaskSection(ratio=0.6, side=2), (6, 10), "6fc235d66c82 f055a5298a5a"),
    (masks.BlockMaskSection(**BLOCK, ratio=0.4), (9, 14), "380ffeaa460d 480cb1fab51a"),
    (
        masks.BlockMaskSection(**BLOCK, count=75, max_block=30, aspect=(0.5, 1.5)),
        (14, 14),
        "f77c9b677b0c 14ff2f377cac",
    ),
    (masks.BallMaskSection(kind="ball", ratio=0.6), (13,), "e634a895931e 2e3221ebd351"),
    (masks.SquareBlockMaskSection(ratio=0.8, adjust=0.07), (14, 9), "085a5d7221c3 cae24ace8ab8"),
    (
        masks.SquareBlockMaskSection(ratio=0.4, side=4, squares="masked"),
        (9, 12),
        "26791f3c5fd8 233badc35d8a",
    ),
    (RolledBlockMaskSection(ratio=0.65, predicted=0.2), (14, 9), "563bd45374c8 edab88e7a52a"),
    (
        RolledBlockMaskSection(ratio=0.5, block="masked", roll=False),
        (8, 12),
        "b86e7974e79e ec6123a804ba",
    ),
    (masks.ClipMaskSection(ratio=0.7), (3, 5, 6), "a690943faa4f adb69d9b6467"),
    (
        masks.ClipMaskSection(ratio=0.7, kind="spacetime", decoder_ratio=0.25),
        (3, 5, 6),
        "292ec8953f4c f65d16644196",
    ),
    (
        masks.ClipMaskSection(ratio=0.9, decoder_ratio=0.5, decode_visible=False),
        (4, 6, 6),
        "1911041928b9 536216ac4420",
    ),
    (VolumeMaskSection(ratio=0.65, cube=2), (5, 6, 4), "19b076448c8b 462892887fdd"),  # 7.8 cubes
    (VolumeMaskSection(ratio=0.6, cube=2), (5, 6, 4), "6e3404fd159b 1a8dd03e681b"),
    (
        VolumeMaskSection(ratio=0.6, cube=2, draw="bernoulli"),
        (5, 6, 4),
        "5c0e2d8b4245 9c056a483adf",
    ),
    (masks.MultiBlockMaskSection(), (14, 16), "4ca069ba0abf 3b7eac3d96e7"),
    (
        masks.MultiBlockMaskSection(contexts=2, context_cut="fixed", context_tokens=60),
        (14, 16),
        "acbca87f4771 20fe520c122a",
    ),
    (masks.MultiBlockMaskSection(overlap=True, targets=2), (12, 10), "628ea3c373ac d8441468e955"),
    (
        masks.ClipBlocksMaskSection(sets=(SET, SET | {"complement": "target"})),
        (4, 7, 8),
        "e6a0b98d56cc 3ddf1af500d3",
    ),
    (
        masks.ClipBlocksMaskSection(sets=(SET | {"complement": "context"},)),
        (4, 7, 8),
        "46384d96d87a 5d61a7848794",
    ),
    (
        masks.ClipBlocksMaskSection(sets=(SET | {"max_context": 9, "inverse": True},)),
        (4, 7, 8),
        "6f1e164c9cb5 16c359712749",
    ),
    (
        masks.ClipBlocksMaskSection(sets=(SET | {"context_time": 0.6},)),
        (4, 7, 8),
        "8ccf9d9474d1 d0122e404a21",
    ),
]


def name(value: Any) -> str | None:
    return getattr(value, "kind", None)


@pytest.mark.parametrize(("section", "grid", "stored"), SAMPLERS, ids=name)
def test_masks_are_those_of_earlier_versions(section: Any, grid: Any, stored: str) -> None:
    kinds = {"multi-block": MultiBlockSampler, "clip-blocks": ClipBlockSampler}
    sampler = kinds.get(section.kind, build_sampler)(section)
    assert sampled(sampler, grid, getattr(sampler, "needs_guide", False)) == stored
