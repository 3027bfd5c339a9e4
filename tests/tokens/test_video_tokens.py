"""Clips to tubelets and back, and their positions."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mimsuite.tokens import from_tubelets, resize_clip_positions, sinusoid_1d, tubelets


def test_tubelets_are_what_a_convolution_of_their_size_sees():
    torch.manual_seed(0)
    clips = torch.randn(2, 3, 4, 8, 12)
    conv = nn.Conv3d(3, 5, (2, 4, 4), (2, 4, 4))
    kernel = conv.weight.permute(0, 2, 3, 4, 1).flatten(1)
    embedded = tubelets(clips, 2, 4) @ kernel.T + conv.bias
    torch.testing.assert_close(embedded, conv(clips).flatten(2).transpose(1, 2), atol=1e-5, rtol=0)


def test_tubelets_go_back_and_can_be_asked_for_by_number():
    clips = torch.randn(2, 3, 4, 8, 12)
    tokens = tubelets(clips, 2, 4)
    assert torch.equal(from_tubelets(tokens, 2, 4, (2, 2, 3)), clips)
    ids = torch.tensor([[0, 5, 11], [7, 2, 2]])
    rows = torch.arange(2)[:, None]
    assert torch.equal(tubelets(clips, 2, 4, ids), tokens[rows, ids])


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="do not divide"):
        tubelets(torch.zeros(1, 3, 5, 8, 8), 2, 4)


def test_positions_alternate_sine_and_cosine():
    table = sinusoid_1d(7, 6)
    angle = 3 / 10000 ** (2 / 6)
    assert table[3, 2] == pytest.approx(torch.tensor(angle).sin().item(), abs=1e-6)
    assert table[3, 3] == pytest.approx(torch.tensor(angle).cos().item(), abs=1e-6)


def test_positions_are_resized_in_space_and_in_time():
    table = torch.randn(1, 4 * 3 * 3, 5)
    assert resize_clip_positions(table, (4, 3, 3), (4, 3, 3)) is table
    longer = resize_clip_positions(table, (4, 3, 3), (8, 3, 3)).unflatten(1, (8, 9))
    frames = table.unflatten(1, (4, 9))
    torch.testing.assert_close(longer[:, 1], 0.75 * frames[:, 0] + 0.25 * frames[:, 1])
    wider = resize_clip_positions(table, (4, 3, 3), (4, 6, 5)).unflatten(1, (4, 30))
    alone = resize_clip_positions(frames[:, 2], (1, 3, 3), (1, 6, 5))
    torch.testing.assert_close(wider[:, 2], alone)
