"""Block-wise masks: the published statistics, equal counts, no endless loops, nothing global."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.torch import load_file

from mimsuite.config.keys.masks import BlockMaskSection
from mimsuite.errors import UserError
from mimsuite.masking import BlockSampler, build_sampler
from mimsuite.noise import FixedNoise, Noise

STATISTICS = Path(__file__).parents[1] / "goldens" / "image" / "blockmask-stats.safetensors"
GRID = (14, 14)


def block(**keys: object) -> BlockSampler:
    return BlockSampler(BlockMaskSection.model_validate({"kind": "block", **keys}))


def masks(sampler: BlockSampler, samples: int, grid: tuple[int, int] = GRID) -> torch.Tensor:
    return sampler.sample(Noise(0, 0, torch.arange(samples)), grid).dense().view(-1, *grid)


def test_places_are_masked_as_often_as_published() -> None:
    """The stored means are over 4000 masks, so they waver by 0.008 themselves."""
    stored = load_file(STATISTICS)["cae98.position_mean"]
    found = masks(block(count=98), 4000)
    assert (found.float().mean(0) - stored).abs().max() < 0.05
    pairs = (found[:, 1:] & found[:, :-1]).sum((1, 2)) + (found[:, :, 1:] & found[:, :, :-1]).sum(
        (1, 2)
    )
    assert abs(float(pairs.float().mean()) - 168.957) < 0.4
    assert abs(float(pairs.float().std()) - 3.745) < 0.2


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(3, 16),
    columns=st.integers(3, 16),
    part=st.floats(0.05, 0.9),
    smallest=st.integers(1, 12),
    seed=st.integers(0, 99),
)
def test_any_rectangle_gets_equal_counts(
    rows: int, columns: int, part: float, smallest: int, seed: int
) -> None:
    assume(smallest <= (min(rows, columns) - 1) ** 2)  # blocks reach along no side
    count = max(1, int(part * rows * columns))
    sampler = block(count=count, min_block=smallest)
    mask = sampler.sample(Noise(seed, 1, torch.arange(3)), (rows, columns))
    assert mask.dense().sum(1).tolist() == [count] * 3
    assert torch.equal(mask.visible, mask.visible.sort(1).values)  # raster order
    both = torch.cat([mask.visible, mask.masked], 1).sort(1).values
    assert torch.equal(both, torch.arange(rows * columns).expand(3, -1))


def test_blocks_that_are_too_large_for_the_grid_are_refused() -> None:
    with pytest.raises(UserError, match=r"mask\.min_block 7 patches"):
        block(count=7, min_block=7).sample(Noise(0, 1, torch.arange(3)), (3, 3))


def test_ratio_counts_as_in_random_masking() -> None:
    assert masks(block(ratio=0.5), 2).sum((1, 2)).tolist() == [98, 98]
    assert block(ratio=0.9).section.visible(100) == 9  # int(100 * (1 - 0.9)), as published


def test_a_mask_depends_on_its_key_alone() -> None:
    sampler = block(count=75)
    whole = sampler.sample(Noise(3, 7, torch.arange(6)), GRID)
    part = sampler.sample(Noise(3, 7, torch.tensor([4, 1])), GRID)
    assert torch.equal(part.masked, whole.masked[[4, 1]])
    assert not torch.equal(whole.masked[0], whole.masked[1])
    other = sampler.sample(Noise(3, 8, torch.arange(6)), GRID)
    assert not torch.equal(whole.masked, other.masked)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    sampler.sample(Noise(3, 7, torch.arange(6)), GRID)
    assert states[0] == random.getstate()
    assert states[1] == np.random.get_state()[1].tolist()
    assert torch.equal(states[2], torch.get_rng_state())


def test_masks_are_made_from_the_index_on_the_host() -> None:
    """Where the batch is on a device, nothing of it is read back."""
    blank = Noise(3, 7, torch.empty(6, dtype=torch.int64, device="meta"), torch.arange(6))
    sampler = block(count=75)
    known = sampler.sample(Noise(3, 7, torch.arange(6)), GRID)
    rows = blank.on_host("mask", sampler.noise_width(GRID))
    assert torch.equal(sampler(rows, GRID).masked, known.masked)
    assert sampler.sample(blank, GRID).masked.device.type == "meta"


def test_noise_may_be_given_by_hand() -> None:
    rows = torch.tensor([[0.25, 0.75], [0.25, 0.75]])
    mask = block(count=20).sample(FixedNoise({"mask": rows}), GRID)
    assert torch.equal(mask.masked[0], mask.masked[1])


@pytest.mark.parametrize(
    ("keys", "grid"),
    [
        ({"count": 3}, (1, 8)),  # no block is lower than the grid
        ({"count": 9, "aspect": [6.0, 8.0]}, (4, 4)),
        ({"count": 20}, (4, 4)),
    ],
)
def test_counts_that_cannot_be_reached_are_refused(
    keys: dict[str, object], grid: tuple[int, int]
) -> None:
    sampler = block(**keys)
    with pytest.raises(UserError, match=r"mask\.count .* mask\.min_block .* mask\.aspect"):
        sampler.require_reachable(grid)
    with pytest.raises(UserError):
        sampler.sample(Noise(0, 0, torch.arange(2)), grid)


def test_hard_but_possible_counts_are_reached() -> None:
    """Blocks of 16 on a grid of 16 patches are cut down to what is left."""
    sampler = build_sampler(BlockMaskSection(kind="block", ratio=0.5))
    sampler.require_reachable((4, 4))
    assert sampler.sample(Noise(0, 0, torch.arange(9)), (4, 4)).masked.shape == (9, 8)


@pytest.mark.parametrize(
    "keys", [{}, {"ratio": 0.5, "count": 3}, {"ratio": 0.5, "aspect": [2.0, 1.0]}, {"ratio": 1.0}]
)
def test_sections_that_say_nothing_are_refused(keys: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        block(**keys)
