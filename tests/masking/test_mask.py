"""Invariants of TokenMask and of the random sampler."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mimsuite.config.keys.masks import RandomMaskSection
from mimsuite.masking import RandomSampler, TokenMask, gather_tokens

GOLDENS = Path(__file__).parents[1] / "goldens"

quick = settings(max_examples=60, deadline=None)


@st.composite
def grids(draw: st.DrawFn) -> tuple[int, ...]:
    return tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=3)))


@st.composite
def masks(draw: st.DrawFn) -> TokenMask:
    """A random partition in random order, a batch of 1 to 4."""
    grid = draw(grids())
    tokens = math.prod(grid)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    noise = torch.rand(draw(st.integers(1, 4)), tokens, generator=generator)
    return TokenMask.from_order(noise.argsort(1), draw(st.integers(0, tokens)), grid)


def tokens_of(mask: TokenMask, width: int = 3) -> Tensor:
    """(B, N, width) tokens that all differ."""
    count = len(mask.visible) * mask.tokens * width
    return torch.arange(count, dtype=torch.float32).reshape(-1, mask.tokens, width)


# --- the partition --------------------------------------------------------------------------------


@quick
@given(masks())
def test_visible_and_masked_are_a_partition(mask: TokenMask) -> None:
    every = torch.cat([mask.visible, mask.masked], dim=1).sort(1).values
    assert torch.equal(every, torch.arange(mask.tokens).expand_as(every))
    assert mask.tokens == math.prod(mask.grid)


@quick
@given(masks())
def test_dense_marks_the_masked_ones(mask: TokenMask) -> None:
    dense = mask.dense()
    assert dense.dtype == torch.bool
    assert dense.shape == (len(mask.visible), mask.tokens)
    assert (dense.sum(1) == mask.masked.shape[1]).all()
    assert dense.gather(1, mask.masked).all()
    assert not dense.gather(1, mask.visible).any()


@quick
@given(masks())
def test_restore_inverts_the_order(mask: TokenMask) -> None:
    order = torch.cat([mask.visible, mask.masked], dim=1)
    raster = torch.arange(mask.tokens).expand_as(order)
    assert torch.equal(order.gather(1, mask.restore()), raster)


@quick
@given(masks())
def test_flip_sees_what_was_masked(mask: TokenMask) -> None:
    flipped = mask.flip()
    assert torch.equal(flipped.dense(), ~mask.dense())
    again = flipped.flip()
    assert torch.equal(again.visible, mask.visible)
    assert torch.equal(again.masked, mask.masked)


def test_counts_must_add_up_to_the_grid() -> None:
    ids = torch.arange(5)[None]
    with pytest.raises(ValueError, match=r"2 visible \+ 2 masked tokens are not the 5"):
        TokenMask((5,), ids[:, :2], ids[:, 2:4])


# --- gathering and putting back -------------------------------------------------------------------


@quick
@given(masks(), st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.int64]))
def test_assemble_undoes_gather(mask: TokenMask, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (len(mask.visible), mask.tokens, 3)
    tokens = torch.randint(0, 100, shape, generator=generator).to(dtype)
    visible, masked = mask.gather(tokens, "visible"), mask.gather(tokens, "masked")
    assert torch.equal(mask.assemble(visible, masked), tokens)


@quick
@given(masks())
def test_assemble_fills_with_a_mask_token(mask: TokenMask) -> None:
    tokens, fill = tokens_of(mask), torch.full((3,), -1.0)
    rebuilt = mask.assemble(mask.gather(tokens, "visible"), fill)
    expected = tokens.masked_fill(mask.dense().unsqueeze(-1), -1.0)
    assert torch.equal(rebuilt, expected)


def test_assemble_keeps_the_tokens_dtype_and_the_gradient_of_the_fill() -> None:
    mask = TokenMask.from_order(torch.tensor([[2, 0, 1]]), 1, (3,))
    fill = torch.ones(1, 1, 4, requires_grad=True)
    rebuilt = mask.assemble(torch.zeros(1, 1, 4, dtype=torch.bfloat16), fill)
    assert rebuilt.dtype == torch.bfloat16
    rebuilt.sum().backward()
    assert torch.equal(fill.grad, torch.full((1, 1, 4), 2.0))  # two masked tokens


@quick
@given(masks(), st.integers(0, 2))
def test_gather_takes_tokens_of_any_rank(mask: TokenMask, axes: int) -> None:
    batch = len(mask.visible)
    tokens = torch.randn(batch, mask.tokens, *[2] * axes)
    gathered = mask.gather(tokens, "masked")
    assert gathered.shape == (batch, mask.masked.shape[1], *[2] * axes)
    for sample in range(batch):
        assert torch.equal(gathered[sample], tokens[sample, mask.masked[sample]])


@pytest.mark.parametrize("shape", [(1, 6, 4), (1, 6)])
def test_gather_shares_a_table_over_the_batch(shape: tuple[int, ...]) -> None:
    table, ids = torch.randn(shape), torch.tensor([[5, 0], [1, 1], [2, 3]])
    gathered = gather_tokens(table, ids)
    assert torch.equal(gathered, table[0][ids])


def test_decoded_is_the_masked_part_unless_given() -> None:
    mask = TokenMask.from_order(torch.arange(6)[None], 2, (6,))
    assert torch.equal(mask.ids("decoded"), mask.masked)


def test_moving_keeps_every_part() -> None:
    removed = torch.tensor([[0, 1, 1, 0]])
    for mask in (
        TokenMask.from_removed(removed, (4,)),
        TokenMask.from_removed(removed, (4,), not_decoded=torch.tensor([[1, 0, 1, 0]])),
    ):
        moved = mask.to("meta")
        assert moved.visible.device.type == moved.masked.device.type == "meta"
        assert (moved.decoded is None) == (mask.decoded is None)
        assert (moved.decoded_masked is None) == (mask.decoded_masked is None)


# --- published masks ------------------------------------------------------------------------------


@quick
@given(masks(), st.sampled_from([torch.bool, torch.float32, torch.int64]))
def test_from_removed_inverts_dense(mask: TokenMask, dtype: torch.dtype) -> None:
    rebuilt = TokenMask.from_removed(mask.dense().to(dtype), mask.grid)
    assert torch.equal(rebuilt.visible, mask.visible.sort(1).values)  # raster order
    assert torch.equal(rebuilt.masked, mask.masked.sort(1).values)


@quick
@given(masks())
def test_from_removed_keeps_a_given_order(mask: TokenMask) -> None:
    order = torch.cat([mask.visible, mask.masked], dim=1)
    rebuilt = TokenMask.from_removed(mask.dense(), mask.grid, order=order)
    assert torch.equal(rebuilt.visible, mask.visible)
    assert torch.equal(rebuilt.masked, mask.masked)


@quick
@given(masks(), st.data())
def test_decoded_subset_carries_its_loss_weight(mask: TokenMask, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, mask.tokens))
    skipped = torch.zeros(len(mask.visible), mask.tokens, dtype=torch.bool)
    order = torch.rand(skipped.shape, generator=torch.Generator().manual_seed(0)).argsort(1)
    skipped.scatter_(1, order[:, :count], True)
    decoded = TokenMask.from_removed(mask.dense(), mask.grid, not_decoded=skipped)
    assert decoded.decoded is not None
    assert decoded.decoded.shape[1] == mask.tokens - count
    assert not skipped.gather(1, decoded.decoded).any()
    assert torch.equal(decoded.decoded_masked, mask.dense().gather(1, decoded.decoded))
    assert torch.equal(decoded.ids("decoded"), decoded.decoded)


def test_decoded_follows_the_order() -> None:
    removed = torch.tensor([[1, 1, 0, 0]])
    order, skipped = torch.tensor([[3, 1, 0, 2]]), torch.tensor([[0, 0, 1, 0]])
    mask = TokenMask.from_removed(removed, (4,), order=order, not_decoded=skipped)
    assert mask.visible.tolist() == [[3, 2]]
    assert mask.masked.tolist() == [[1, 0]]
    assert mask.decoded.tolist() == [[3, 1, 0]]
    assert mask.decoded_masked.tolist() == [[False, True, True]]


def test_unequal_counts_are_refused() -> None:
    with pytest.raises(ValueError, match=r"different numbers of tokens: \[1, 2\]"):
        TokenMask.from_removed(torch.tensor([[1, 0, 0], [1, 1, 0]]), (3,))


# --- the random sampler ---------------------------------------------------------------------------


@quick
@given(grids(), st.floats(0.0, 0.99), st.integers(1, 3), st.integers(0, 99))
def test_sampler_keeps_the_least_noise_in_its_order(
    grid: tuple[int, ...], ratio: float, batch: int, seed: int
) -> None:
    tokens = math.prod(grid)
    noise = torch.rand(batch, tokens, generator=torch.Generator().manual_seed(seed))
    mask = RandomSampler(RandomMaskSection(ratio=ratio))(noise, grid)
    assert mask.grid == grid
    assert mask.visible.shape[1] == int(tokens * (1 - ratio))
    ordered = torch.cat([mask.gather(noise, "visible"), mask.gather(noise, "masked")], dim=1)
    assert (ordered.diff(dim=1) >= 0).all()


def test_published_counts_with_their_float_traps() -> None:
    """``int(N * (1 - ratio))`` in float64: 100 tokens at 0.9 keep 9, not 10."""
    table = json.loads((GOLDENS / "image" / "len-keep.json").read_text())["table"]
    traps = 0
    for entry in table:
        tokens, ratio = entry["args"]["num_patches"], entry["args"]["mask_ratio"]
        mask = RandomSampler(RandomMaskSection(ratio=ratio))(torch.rand(1, tokens), (tokens,))
        assert mask.visible.shape[1] == entry["expected"]["len_keep"], entry["id"]
        traps += entry["expected"]["len_keep"] != math.floor(tokens * (1000 - 1000 * ratio) / 1000)
    assert len(table) > 100
    assert traps > 0


def test_equal_noise_sorts_by_position() -> None:
    mask = RandomSampler(RandomMaskSection(ratio=0.5))(torch.zeros(2, 8), (8,))
    assert mask.visible.tolist() == [[0, 1, 2, 3]] * 2


def test_every_token_is_masked_equally_often() -> None:
    noise = torch.rand(20_000, 9, generator=torch.Generator().manual_seed(0))
    mask = RandomSampler(RandomMaskSection(ratio=2 / 3))(noise, (3, 3))
    share = mask.dense().float().mean(0)
    # Five standard deviations of a mean of 20,000 draws of probability 2/3.
    assert (share - 2 / 3).abs().max() < 5 * math.sqrt(2 / 9 / 20_000)
