"""The rolled block: counts, one block, borders, and grids that are refused."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mimsuite.config.keys.rolled_mask import RolledBlockMaskSection
from mimsuite.masking import RolledBlockSampler
from mimsuite.noise import Noise

SIDES = st.integers(4, 20)


@given(
    rows=SIDES, columns=SIDES, ratio=st.floats(0.2, 0.8), roll=st.booleans(), seed=st.integers(0, 9)
)
@settings(max_examples=60, deadline=None)
def test_masks_are_partitions_with_equal_counts(
    rows: int, columns: int, ratio: float, roll: bool, seed: int
) -> None:
    section = RolledBlockMaskSection(ratio=ratio, roll=roll, predicted=0.5)
    grid = (rows, columns)
    try:
        section.require_grid(grid)
    except ValueError:
        return
    mask = RolledBlockSampler(section).sample(Noise(seed, 0, torch.arange(9)), grid).check()
    tokens = rows * columns
    assert mask.masked.shape[1] == section.masked(tokens)
    decoded = mask.ids("decoded")
    assert decoded.shape[1] == section.decoded(tokens)
    assert bool(mask.dense().gather(1, decoded).all())
    assert len(set(decoded[0].tolist())) == decoded.shape[1]
    assert torch.equal(mask.visible, mask.visible.sort(dim=1).values)


def test_the_block_is_a_rectangle_with_a_last_row_that_may_be_short() -> None:
    section = RolledBlockMaskSection(ratio=0.65, roll=False)
    mask = RolledBlockSampler(section).sample(Noise(0, 0, torch.arange(50)), (16, 16))
    for seen in (~mask.dense()).view(-1, 16, 16):
        rows, columns = seen.any(1).nonzero().flatten(), seen.any(0).nonzero().flatten()
        inside = seen[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert bool(inside[:-1].all())
        assert 0.4 < len(rows) / len(columns) < 2.4


def test_a_roll_puts_the_block_over_every_border() -> None:
    section = RolledBlockMaskSection(ratio=0.65)
    mask = RolledBlockSampler(section).sample(Noise(0, 0, torch.arange(400)), (16, 16))
    seen = (~mask.dense()).view(-1, 16, 16)
    assert bool((seen[:, 0].any(1) & seen[:, -1].any(1)).any())
    assert bool((seen[:, :, 0].any(1) & seen[:, :, -1].any(1)).any())
    shares = mask.dense().float().mean(0)
    assert float(shares.max() - shares.min()) < 0.2


def test_the_block_may_be_what_is_hidden() -> None:
    sampler = RolledBlockSampler(RolledBlockMaskSection(ratio=0.3, block="masked", predicted=1.0))
    mask = sampler.sample(Noise(0, 0, torch.arange(3)), (8, 8)).check()
    assert mask.masked.shape == (3, 19)
    assert torch.equal(mask.ids("decoded").sort(dim=1).values, mask.masked)


def test_a_sample_has_the_same_mask_in_any_batch() -> None:
    sampler = RolledBlockSampler(RolledBlockMaskSection(ratio=0.65, predicted=0.2))
    whole = sampler.sample(Noise(0, 3, torch.arange(6)), (16, 16))
    part = sampler.sample(Noise(0, 3, torch.arange(4, 6)), (16, 16))
    assert torch.equal(whole.visible[4:], part.visible)
    assert torch.equal(whole.ids("decoded")[4:], part.ids("decoded"))


@pytest.mark.parametrize(
    ("keys", "grid", "words"),
    [
        ({"ratio": 0.65}, (4, 4), "leaves nothing to predict; the smallest square grid that works"),
        ({"ratio": 0.01}, (8, 8), "ratio 0.01 leaves nothing to see|nothing to predict"),
        ({"ratio": 0.2, "predicted": 1.0}, (4, 30), "no block of 96 at an aspect of 0.5 to 2"),
    ],
)
def test_a_grid_that_cannot_work_is_refused(keys: dict, grid: tuple[int, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        RolledBlockMaskSection(**keys).require_grid(grid)
