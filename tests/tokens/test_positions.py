"""Sin-cos positions and resizing of position tables."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from mimsuite.tokens import resize_positions, sincos_2d
from mimsuite.tokens.positions import points_of_sincos, sincos_points

GOLDENS = Path(__file__).parents[1] / "goldens" / "image"
TABLE = json.loads((GOLDENS / "sincos-pos-embed.json").read_text())["table"]
STORED = load_file(GOLDENS / "sincos-pos-embed.safetensors")


@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: entry["id"])
def test_published_tables(entry: dict) -> None:
    """MAE's and CRATE's tables, and with the row first CAE's."""
    args, cae = entry["args"], entry["family"] == "cae"
    # CAE's code walks a rectangle column by column: its table is that of the transposed grid.
    grid = tuple(reversed(args["grid"])) if cae else tuple(args["grid"])
    table = sincos_2d(args["dim"], grid, row_first=cae)
    table = F.pad(table, (0, 0, int(args["cls_token"]), 0))
    if args["rows"] is not None:
        table = table[args["rows"]]
    # CRATE and CAE were computed in float32: a few units of the last place in the angle.
    bound = 0.0 if entry["family"] == "mae" else 1e-6
    for name in entry["expected"]["tensors"]:
        torch.testing.assert_close(table, STORED[name], atol=bound, rtol=0)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 4), st.booleans())
def test_formula(rows: int, columns: int, quarter: int, row_first: bool) -> None:
    table = sincos_2d(4 * quarter, (rows, columns), row_first)
    assert table.shape == (rows * columns, 4 * quarter)
    assert table.dtype == torch.float32
    for token in range(rows * columns):
        place = (token // columns, token % columns)
        first, second = place if row_first else place[::-1]
        angles = [at * 10000.0 ** (-k / quarter) for at in (first, second) for k in range(quarter)]
        expected = [
            wave(angle)
            for half in (angles[:quarter], angles[quarter:])
            for wave in (math.sin, math.cos)
            for angle in half
        ]
        torch.testing.assert_close(table[token], torch.tensor(expected), atol=1e-6, rtol=0)


def test_width_must_hold_two_axes_of_two_waves() -> None:
    with pytest.raises(ValueError, match="that 4 divides, not 6"):
        sincos_2d(6, (2, 2))


def test_resizing_to_the_same_grid_is_the_table_itself() -> None:
    table = torch.randn(1, 17, 8)
    assert resize_positions(table, (4, 4), (4, 4)) is table


@pytest.mark.parametrize("prefix", [0, 1, 2])
def test_resizing_keeps_leading_rows_and_constants(prefix: int) -> None:
    """Bicubic weights sum to 1, so a constant stays what it is."""
    table = torch.full((1, prefix + 6, 4), 0.25)
    table[:, :prefix] = 7.0
    resized = resize_positions(table, (2, 3), (5, 4))
    assert resized.shape == (1, prefix + 20, 4)
    assert (resized[:, :prefix] == 7.0).all()
    torch.testing.assert_close(resized[:, prefix:], torch.full((1, 20, 4), 0.25))


def test_resizing_works_along_each_axis() -> None:
    """A table that varies with the column only still does."""
    columns = torch.arange(4.0).expand(3, 4).reshape(1, 12, 1)
    resized = resize_positions(columns, (3, 4), (6, 8)).reshape(6, 8)
    torch.testing.assert_close(resized, resized[:1].expand(6, 8))
    assert (resized[0].diff() > 0).all()


def test_published_resizing() -> None:
    tensors = load_file(GOLDENS / "mae-vit-a-globalpool.safetensors")
    resized = resize_positions(tensors["pos_embed_in"], (4, 4), (8, 8))
    torch.testing.assert_close(resized, tensors["pos_embed_interp"], atol=1e-6, rtol=0)


def test_codes_of_points_and_back() -> None:
    points = torch.tensor([[0.3, -0.9, 0.5], [1.2, 0.0, -1.0]])
    code = sincos_points(points, 12)
    assert code.shape == (2, 12)
    angle = torch.tensor([0.3, 0.003])  # the frequencies are 1 and 1/100
    torch.testing.assert_close(code[0, :4], torch.cat([angle.sin(), angle.cos()]))
    torch.testing.assert_close(points_of_sincos(code), points)
    with pytest.raises(ValueError, match="6 divides"):
        sincos_points(points, 10)
