"""NeRF-MAE as a plain implementation in the published layout; the peer of `bench_volume.py`.

Written from the paper and the published names: windows rolled and cut out, attention written out
with biases and the mask of shifted windows added one after the other, masks drawn cube by cube.

Letters: B batch, (X, Y, Z) tokens along the axes, W windows, n tokens of a window, C width.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

GOLDEN = Path(__file__).parents[1] / "tests/goldens/nerf/case_s.safetensors"
SIDE, PATCH, OCCUPIED = 4, 4, 0.01  # tokens of a window, voxels of a token, opacity of a colour


def windows(x: Tensor) -> Tensor:
    """(B, X, Y, Z, C) -> (B W, n, C)."""
    batch, a, b, c, width = x.shape
    cut = x.view(batch, a // SIDE, SIDE, b // SIDE, SIDE, c // SIDE, SIDE, width)
    return cut.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(-1, SIDE**3, width)


class Attention(nn.Module):
    """Softmax attention in windows, shifted or not."""

    def __init__(self, width: int, heads: int, shift: int) -> None:
        super().__init__()
        self.heads, self.shift = heads, shift
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * SIDE - 1) ** 3, heads))
        at = torch.stack(torch.meshgrid(*[torch.arange(SIDE)] * 3, indexing="ij")).flatten(1)
        apart = at[:, :, None] - at[:, None, :] + SIDE - 1
        across = 2 * SIDE - 1
        index = (apart[0] * across + apart[1]) * across + apart[2]
        self.register_buffer("relative_position_index", index.flatten())
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        batch, *sizes, width = x.shape
        far = [-size % SIDE for size in sizes]
        x = F.pad(x, (0, 0, 0, far[2], 0, far[1], 0, far[0]))
        padded = x.shape[1:4]
        shift = [self.shift if side > SIDE else 0 for side in padded]
        if any(shift):
            x = torch.roll(x, [-s for s in shift], dims=(1, 2, 3))
        cut = windows(x)  # (B W, n, C)
        qkv = self.qkv(cut).reshape(len(cut), SIDE**3, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)  # (B W, h, n, n)
        bias = self.relative_position_bias_table[self.relative_position_index]
        scores = scores + bias.view(SIDE**3, SIDE**3, -1).permute(2, 0, 1)
        if any(shift):
            mask = self.regions(padded, shift, x.device)  # (W, n, n)
            scores = scores.view(batch, len(mask), self.heads, SIDE**3, SIDE**3)
            scores = (scores + mask[:, None]).flatten(0, 1)
        mixed = (scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(cut.shape)
        mixed = self.proj(mixed)
        a, b, c = (side // SIDE for side in padded)
        mixed = mixed.view(batch, a, b, c, SIDE, SIDE, SIDE, width)
        x = mixed.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(x.shape)
        if any(shift):
            x = torch.roll(x, shift, dims=(1, 2, 3))
        return x[:, : sizes[0], : sizes[1], : sizes[2]]

    def regions(self, padded: Sequence[int], shift: Sequence[int], device: torch.device) -> Tensor:
        """(W, n, n): -100 between tokens that only the shift has brought together."""
        region = torch.zeros(1, *padded, 1, device=device)
        number = 0
        cuts = [(slice(0, -SIDE), slice(-SIDE, -s), slice(-s, None)) if s else (slice(None),)
                for s in shift]  # fmt: skip
        for x in cuts[0]:
            for y in cuts[1]:
                for z in cuts[2]:
                    region[:, x, y, z] = number
                    number += 1
        own = windows(region)[..., 0]
        return (own[:, :, None] != own[:, None, :]).float() * -100.0


class Block(nn.Module):
    """Pre-norm block; the published names leave gaps for activation and dropout."""

    def __init__(self, width: int, heads: int, shift: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), Attention(width, heads, shift)
        self.norm2 = nn.LayerNorm(width)
        layers = {
            "0": nn.Linear(width, 4 * width),
            "1": nn.GELU(),
            "3": nn.Linear(4 * width, width),
        }
        self.mlp = nn.Sequential()
        for name, layer in layers.items():
            self.mlp.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Merging(nn.Module):
    """Eight neighbours become one token of twice the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8 * width)
        self.reduction = nn.Linear(8 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, 0, 0, x.shape[3] % 2, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        parts = [x[:, a::2, b::2, c::2] for c in (0, 1) for b in (0, 1) for a in (0, 1)]
        return self.reduction(self.norm(torch.cat(parts, dim=-1)))


class Up(nn.Module):
    """Transposed convolution, the skip beside it, and a residual block."""

    def __init__(self, wide: int, width: int, times: int, skips: bool) -> None:
        super().__init__()
        self.transp_conv = nn.ConvTranspose3d(wide, width, times, stride=times)
        both = width * (1 + skips)
        convs = {"conv1": nn.Conv3d(both, width, 3, padding=1)}
        convs["conv2"] = nn.Conv3d(width, width, 3, padding=1)
        if both != width:
            convs["conv3"] = nn.Conv3d(both, width, 1)
        self.conv_block = nn.ModuleDict(convs)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        x = self.transp_conv(x)
        x = x if skip is None else torch.cat([x, skip], dim=1)
        convs = self.conv_block
        out = F.leaky_relu(F.instance_norm(convs["conv1"](x)), 0.01)
        out = F.instance_norm(convs["conv2"](out))
        kept = F.instance_norm(convs["conv3"](x)) if "conv3" in convs else x
        return F.leaky_relu(out + kept, 0.01)


class PlainNerfMAE(nn.Module):
    """NeRF-MAE under its published names, without drop path."""

    def __init__(self, resolution: int, width: int, depths: Sequence[int], heads: Sequence[int]):
        super().__init__()
        side = resolution // PATCH
        self.patch_partition = nn.Sequential()
        self.patch_partition.add_module("0", nn.Conv3d(4, width, PATCH, stride=PATCH))
        self.patch_partition.add_module("2", nn.LayerNorm(width))
        self.pos_embed = nn.Parameter(torch.zeros(1, side, side, side, width), requires_grad=False)
        self.mask_token = nn.Parameter(torch.randn(width) * 0.02)
        self.stages = nn.ModuleList()
        for number, (depth, count) in enumerate(zip(depths, heads, strict=True)):
            own = width * 2**number
            merging = [Merging(own // 2)] if number else []
            blocks = [Block(own, count, SIDE // 2 * (n % 2)) for n in range(depth)]
            self.stages.append(nn.Sequential(*merging, *blocks))
        self.decoder4 = Up(8 * width, 4 * width, 2, True)
        self.decoder3 = Up(4 * width, 2 * width, 2, True)
        self.decoder2 = Up(2 * width, width, 2, True)
        self.decoder1 = Up(width, width // 2, PATCH, False)
        self.out = nn.ModuleDict({"conv": nn.Conv3d(width // 2, 4, 1)})

    def forward(self, grid: Tensor, valid: Tensor, masked: Tensor | None = None) -> Tensor:
        """Loss of (B, 4, R, R, R) grids with (B, 1, R, R, R) voxels inside the scene.

        Args:
            masked: (B, t, t, t) bool; None: drawn.
        """
        embed, norm = self.patch_partition
        x = norm(embed(grid).permute(0, 2, 3, 4, 1)) + self.pos_embed
        masked = self.draw(len(grid), x.shape[1]) if masked is None else masked
        x = torch.where(masked[..., None], self.mask_token, x)
        found = []
        for stage in self.stages:
            x = stage(x)
            found.append(x.permute(0, 4, 1, 2, 3))
        y = self.decoder4(found[3], found[2])
        y = self.decoder1(self.decoder2(self.decoder3(y, found[1]), found[0]))
        return self.loss(self.out["conv"](y), grid, valid, masked)

    def loss(self, found: Tensor, grid: Tensor, valid: Tensor, masked: Tensor) -> Tensor:
        occupied = (grid[:, 3:] > OCCUPIED).float()
        rgb = ((found[:, :3] - grid[:, :3]).square() * occupied).sum() / occupied.sum()
        hidden = masked[:, None].float()
        for axis in (2, 3, 4):
            hidden = hidden.repeat_interleave(PATCH, dim=axis)
        hidden = hidden * valid
        alpha = ((found[:, 3:].sigmoid() - grid[:, 3:]).square() * hidden).sum() / hidden.sum()
        return rgb + alpha

    def draw(self, batch: int, side: int) -> Tensor:
        mask = torch.zeros(1, side, side, side, dtype=torch.bool)
        for x in range(0, side - SIDE + 1, SIDE):
            for y in range(0, side - SIDE + 1, SIDE):
                for z in range(0, side - SIDE + 1, SIDE):
                    if random.random() < 0.75:
                        mask[:, x : x + SIDE, y : y + SIDE, z : z + SIDE] = True
        return mask.expand(batch, -1, -1, -1)


def check_plain() -> None:
    """The plain side on the golden case, loss and gradients.

    Raises:
        SystemExit: it does not pass.
    """
    case = load_file(GOLDEN)
    sizes = json.loads(GOLDEN.with_suffix(".json").read_text())["hparams"]
    keys = ("resolution", "embed_dim", "depths", "num_heads")
    plain = PlainNerfMAE(*(sizes[key] for key in keys))
    state = {n.removeprefix("state."): t for n, t in case.items() if n.startswith("state.")}
    plain.load_state_dict(state)
    loss = plain(case["padded"], case["valid"].float(), case["mask"][..., 0].bool())
    loss.backward()
    apart = abs(float(loss.detach()) / float(case["loss"]) - 1)
    for name, parameter in plain.named_parameters():
        if f"grad.{name}" in case:
            stored = case[f"grad.{name}"]
            apart = max(apart, float((parameter.grad - stored).norm() / stored.norm()) / 100)
    if not apart < 1e-5:
        raise SystemExit(f"the plain side does not pass the golden case: {apart:.1e}")
