"""The table of absolute positions of an encoder or decoder of image patches."""

from __future__ import annotations

import torch.nn.functional as F
from torch import nn

from mimsuite.config.keys.encoders import PositionStart
from mimsuite.tokens import sincos_2d


def position_table(
    width: int,
    grid: tuple[int, int],
    class_tokens: int,
    *,
    trained: bool = False,
    start: PositionStart = "sin-cos",
    row_first: bool = False,
) -> nn.Parameter:
    """(1, C + N, width): rows of the class tokens, then of the patches in raster order.

    Args:
        start: initial values. ``sin-cos``: sin-cos codes for patches, zeros for class tokens;
            ``random``: truncated normal with std 0.02 for all rows.
        row_first: see :func:`sincos_2d`.
    """
    table = F.pad(sincos_2d(width, grid, row_first), (0, 0, class_tokens, 0))[None]
    if start == "random":
        nn.init.trunc_normal_(table, std=0.02)
    return nn.Parameter(table, requires_grad=trained)
