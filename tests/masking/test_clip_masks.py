"""Masks of clips: tubes, single tokens, and the decoder's running cell."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mimsuite.config.keys.masks import ClipMaskSection
from mimsuite.masking import TokenMask, build_sampler
from mimsuite.masking.running_cell import running_cell
from mimsuite.noise import Noise

GRIDS = st.tuples(st.integers(1, 8), st.integers(2, 9), st.integers(2, 9))
RATIOS = st.sampled_from([0.0, 0.25, 0.5, 0.75])


def draw(section: ClipMaskSection, grid: tuple[int, int, int], batch: int = 4) -> TokenMask:
    return build_sampler(section).sample(Noise(0, 0, torch.arange(batch)), grid)


@settings(max_examples=60, deadline=None)
@given(GRIDS, st.floats(0.3, 0.9), RATIOS, st.sampled_from(["tube", "spacetime"]))
def test_every_mask_is_a_partition_in_raster_order(grid, ratio, decoder_ratio, kind):
    mask = draw(ClipMaskSection(kind=kind, ratio=ratio, decoder_ratio=decoder_ratio), grid)
    both = torch.cat([mask.visible, mask.masked], dim=1).sort(dim=1).values
    assert torch.equal(both, torch.arange(math.prod(grid)).expand_as(both))
    places = math.prod(grid[1:]) if kind == "tube" else math.prod(grid)
    frames = grid[0] if kind == "tube" else 1
    assert mask.masked.shape[1] == int(ratio * places) * frames
    for part in ("visible", "masked", "decoded"):
        assert (mask.ids(part).diff(dim=1) > 0).all()
    if decoder_ratio:
        assert torch.equal(mask.decoded_masked, mask.dense().gather(1, mask.decoded))


def test_a_tube_is_the_same_in_every_frame_and_reaches_every_place():
    mask = draw(ClipMaskSection(ratio=0.9), (8, 14, 14), batch=200)
    frames = mask.dense().unflatten(1, (8, 196))
    assert (frames.sum(2) == 176).all()
    assert (frames == frames[:, :1]).all()
    assert frames[:, 0].any(0).all()
    assert (~frames[:, 0]).any(0).all()
    assert (mask.visible.shape, mask.masked.shape) == ((200, 160), (200, 1408))


def test_the_running_cell_decodes_half_and_704_tokens_carry_loss():
    mask = draw(ClipMaskSection(ratio=0.9, decoder_ratio=0.5), (8, 14, 14), batch=16)
    assert mask.decoded.shape == (16, 784)
    assert (mask.decoded_masked.sum(1) == 704).all()
    phases = {tuple(row[:8].tolist()) for row in mask.decoded}
    assert len(phases) == 4


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
def test_every_cell_hides_as_many_and_moves_on_by_one_a_frame(ratio):
    hidden = running_cell((8, 6, 4), ratio).unflatten(1, (8, 3, 2, 2, 2))
    counts = hidden.sum(dim=(3, 5))  # of each cell
    assert (counts == round(4 * ratio)).all()
    assert torch.equal(hidden[1, :-1], hidden[0, 1:])  # one frame on is one phase on


@given(GRIDS)
@settings(max_examples=30, deadline=None)
def test_the_running_cell_fits_any_grid(grid):
    hidden = running_cell(grid, 0.5)
    assert hidden.shape == (4, math.prod(grid))
    assert torch.equal(hidden, running_cell((8, 10, 10), 0.5).unflatten(1, (8, 10, 10))[
        :, : grid[0], : grid[1], : grid[2]
    ].flatten(1))  # fmt: skip


def test_visible_tokens_may_be_left_out_of_the_decoder():
    full = draw(ClipMaskSection(ratio=0.9, decoder_ratio=0.5), (8, 14, 14))
    lean = draw(ClipMaskSection(ratio=0.9, decoder_ratio=0.5, decode_visible=False), (8, 14, 14))
    assert torch.equal(full.visible, lean.visible)
    assert lean.decoded_masked.all()
    for all_ids, counted, kept in zip(full.decoded, full.decoded_masked, lean.decoded, strict=True):
        assert torch.equal(all_ids[counted], kept)


def test_sections_that_make_no_sense_are_refused():
    with pytest.raises(ValidationError, match="decode_visible"):
        ClipMaskSection(ratio=0.9, decode_visible=False)
    with pytest.raises(ValidationError):
        ClipMaskSection(ratio=0.9, decoder_ratio=0.6)
    with pytest.raises(ValueError, match="cannot hide"):
        running_cell((2, 2, 2), 0.4)
