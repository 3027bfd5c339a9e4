"""Attention within shifted windows of a volume (Liu et al., arXiv:2103.14030, 2106.13230).

Maps are padded to whole windows and the padding takes part in attention, as in NeRF-MAE's code.
torchvision shrinks the window to small maps instead, which is a different function.

Letters: B batch, (X, Y, Z) tokens along the axes, W windows, n tokens of a window, h heads, C
width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimsuite.models.attend import attend

Size = tuple[int, ...]
# Added to the logits of tokens that share a window only because of the shift. Published code adds
# -100, whose exponential of 4e-44 has no effect either.
_APART = -torch.inf


class WindowAttention(nn.Module):
    """Multi-head attention in windows, with a trained bias for each relative position.

    Args:
        shift: tokens by which windows are shifted along each axis.
    """

    relative_position_index: Tensor

    def __init__(self, width: int, heads: int, window: Size, shift: Size) -> None:
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        offsets = (2 * window[0] - 1) * (2 * window[1] - 1) * (2 * window[2] - 1)
        self.relative_position_bias_table = nn.Parameter(torch.zeros(offsets, heads))
        # Stored, as in published checkpoints.
        self.register_buffer("relative_position_index", relative_positions(window))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """(B, X, Y, Z, C) -> the same shape."""
        sizes = x.shape[1:4]
        padded = [-(-size // w) * w for size, w in zip(sizes, self.window, strict=True)]
        far = [p - size for p, size in zip(padded, sizes, strict=True)]
        x = F.pad(x, (0, 0, 0, far[2], 0, far[1], 0, far[0]))
        whole = zip(self.shift, self.window, padded, strict=True)
        shift = tuple(0 if w >= p else s for s, w, p in whole)  # a single window is not shifted
        if any(shift):
            x = x.roll([-s for s in shift], dims=(1, 2, 3))
        x = self._merge(self._attend(self._split(x), tuple(padded), shift), tuple(padded))
        if any(shift):
            x = x.roll(shift, dims=(1, 2, 3))
        return x[:, : sizes[0], : sizes[1], : sizes[2]]

    def _attend(self, x: Tensor, padded: Size, shift: Size) -> Tensor:
        """(B, W, n, C) windows -> the same shape."""
        batch, windows, tokens, _ = x.shape
        qkv = self.qkv(x).reshape(batch, windows, tokens, 3, self.heads, -1)
        q, k, v = (  # each (B, W h, n, d)
            part.transpose(2, 3).flatten(1, 2) for part in qkv.unbind(3)
        )
        out = attend(q, k, v, self._bias(padded, shift, q))
        out = out.unflatten(1, (windows, self.heads)).transpose(2, 3)  # (B, W, n, h, d)
        return self.proj(out.flatten(3))

    def _bias(self, padded: Size, shift: Size, like: Tensor) -> Tensor:
        """(1, W h, n, n) biases of relative positions, plus :func:`apart` for shifted windows."""
        tokens = like.shape[2]
        bias = self.relative_position_bias_table[self.relative_position_index]
        bias = bias.view(1, tokens, tokens, self.heads).permute(0, 3, 1, 2)  # (1, h, n, n)
        windows = like.shape[1] // self.heads
        if any(shift):
            bias = bias + apart(padded, self.window, shift, like.device)[:, None]  # (W, h, n, n)
        else:
            bias = bias.expand(windows, -1, -1, -1)
        return bias.flatten(0, 1)[None].to(like.dtype)

    def _split(self, x: Tensor) -> Tensor:
        """(B, X, Y, Z, C) -> (B, W, n, C)."""
        return _windows(x, self.window)

    def _merge(self, x: Tensor, padded: Size) -> Tensor:
        """Inverse of :meth:`_split`."""
        batch, _, _, width = x.shape
        counts = [p // w for p, w in zip(padded, self.window, strict=True)]
        x = x.reshape(batch, *counts, *self.window, width)
        return x.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(batch, *padded, width)


def _windows(x: Tensor, window: Size) -> Tensor:
    batch, *padded, width = x.shape
    a, b, c = (p // w for p, w in zip(padded, window, strict=True))
    x = x.reshape(batch, a, window[0], b, window[1], c, window[2], width)
    return x.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(batch, a * b * c, -1, width)


def relative_positions(window: Size) -> Tensor:
    """(n * n,) int64: row of the bias table for each pair of tokens of a window."""
    axes = [torch.arange(side) for side in window]
    at = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)  # (3, n)
    offset = at[:, :, None] - at[:, None, :]  # (3, n, n)
    rows = torch.zeros_like(offset[0])
    for axis, side in enumerate(window):
        rows = rows * (2 * side - 1) + offset[axis] + side - 1
    return rows.flatten()


def apart(padded: Size, window: Size, shift: Size, device: torch.device) -> Tensor:
    """(W, n, n): ``-inf`` between tokens of a shifted window that lie in different regions."""
    region = torch.zeros(1, *padded, 1, device=device)
    for axis, (size, side, moved) in enumerate(zip(padded, window, shift, strict=True)):
        number = torch.zeros(size, device=device)
        number[size - side :] = 1
        number[size - moved :] = 2 if moved else 1
        shape = [1] * 5
        shape[axis + 1] = size
        region = 3 * region + number.view(shape)
    region = _windows(region, window)[0, :, :, 0]  # (W, n)
    return torch.where(region[:, :, None] == region[:, None, :], 0.0, _APART)
