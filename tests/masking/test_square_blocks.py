"""Masks of squares: exact counts, what they are keyed by, what squares cover."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mimsuite.config.keys.masks import SquareBlockMaskSection
from mimsuite.masking import SquareBlockSampler, TokenMask
from mimsuite.noise import Noise


def draw(step: int = 0, rows: Any = range(6), grid: Any = (14, 14), **keys: Any) -> TokenMask:
    sampler = SquareBlockSampler(SquareBlockMaskSection(**({"ratio": 0.8} | keys)))
    return sampler.sample(Noise(3, step, torch.tensor([*rows])), grid)


@pytest.mark.parametrize(
    ("grid", "ratio", "adjust", "masked"),
    [
        ((14, 14), 0.8, 0.07, 157),  # int(196 * (1 - 0.8)) is 39 in float64
        ((14, 14), 0.75, 0.1, 147),
        ((16, 16), 0.75, 0.1, 192),
        ((5, 9), 0.5, 0.0, 23),
    ],
)
@pytest.mark.parametrize("step", range(3))
def test_every_mask_is_exact(
    grid: Any, ratio: float, adjust: float, masked: int, step: int
) -> None:
    mask = draw(step, grid=grid, ratio=ratio, adjust=adjust).check()
    assert mask.masked.shape[1] == masked
    for ids in (mask.visible, mask.masked):
        assert torch.equal(ids, ids.sort(dim=1).values)  # raster order


def test_squares_may_be_what_is_hidden() -> None:
    mask = draw(ratio=0.6, squares="masked", adjust=0.1).check()
    assert mask.masked.shape[1] == int(196 * 0.6)


@pytest.mark.parametrize(("side", "cells"), [(3, 4), (2, 1), (5, 9)])
def test_a_square_is_cut_off_at_the_border(side: int, cells: int) -> None:
    sampler = SquareBlockSampler(SquareBlockMaskSection(ratio=0.8, side=side))
    covered = sampler.covered(torch.tensor([[0]]), (7, 9))
    assert int(covered.sum()) == cells
    assert bool(covered[0, 0])
    middle = sampler.covered(torch.tensor([[3 * 9 + 4]]), (7, 9))
    assert int(middle.sum()) == side**2


def test_a_mask_is_of_its_sample_and_step() -> None:
    whole, part = draw(5), draw(5, rows=[2, 4])
    assert torch.equal(part.visible, whole.visible[[2, 4]])
    assert not torch.equal(draw(6).visible, whole.visible)


def test_masks_of_the_same_samples_are_joined_as_neighbours() -> None:
    first, second = draw(1), draw(2)
    joined = TokenMask.interleaved([first, second]).check()
    assert torch.equal(joined.visible[0::2], first.visible)
    assert torch.equal(joined.masked[1::2], second.masked)
