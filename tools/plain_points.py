"""Point-MAE as a plain implementation in the published layout; the peer of `bench_points.py`.

Written from the paper and the published names: convolutions over (B G, channels, K) with [g, f]
side by side, attention written out, masks drawn sample by sample, neighbours cloud by cloud, the
Chamfer distance as a table of differences.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

GOLDEN = Path(__file__).parents[1] / "tests/goldens/point/mae_a.safetensors"


class Attention(nn.Module):
    """Softmax attention written out."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attention = ((q @ k.transpose(-2, -1)) * self.scale).softmax(dim=-1)
        return self.proj((attention @ v).transpose(1, 2).reshape(batch, tokens, width))


class Mlp(nn.Module):
    """Two layers and exact GELU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(nn.functional.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), Attention(width, heads)
        self.norm2, self.mlp = nn.LayerNorm(width), Mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Blocks(nn.Module):
    """Blocks, each behind the positions."""

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x + positions)
        return x


class Tokenizer(nn.Module):
    """The mini-PointNet in convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        conv = nn.Conv1d
        self.first_conv = nn.Sequential(
            conv(3, 128, 1), nn.BatchNorm1d(128), nn.ReLU(), conv(128, 256, 1)
        )
        self.second_conv = nn.Sequential(
            conv(512, 512, 1), nn.BatchNorm1d(512), nn.ReLU(), conv(512, width, 1)
        )

    def forward(self, points: Tensor) -> Tensor:
        batch, groups, size, _ = points.shape
        f = self.first_conv(points.reshape(batch * groups, size, 3).transpose(2, 1))
        g = f.max(dim=2, keepdim=True).values.expand(-1, -1, size)
        return self.second_conv(torch.cat([g, f], dim=1)).max(dim=2).values.view(batch, groups, -1)


def positions(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 128), nn.GELU(), nn.Linear(128, width))


class Encoder(nn.Module):
    """Tokens and positions of visible groups through the blocks."""

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.encoder, self.pos_embed = Tokenizer(width), positions(width)
        self.blocks, self.norm = Blocks(width, depth, heads), nn.LayerNorm(width)

    def forward(self, points: Tensor, center: Tensor, masked: Tensor) -> Tensor:
        tokens, width = self.encoder(points), self.norm.normalized_shape[0]
        visible = tokens[~masked].reshape(len(points), -1, width)
        where = self.pos_embed(center[~masked].reshape(len(points), -1, 3))
        return self.norm(self.blocks(visible, where))


class Decoder(Blocks):
    """Blocks whose last tokens are read."""

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__(width, depth, heads)
        self.norm = nn.LayerNorm(width)

    def rebuilt(self, x: Tensor, where: Tensor, masked: int) -> Tensor:
        return self.norm(self(x, where)[:, -masked:])


class PlainPointMAE(nn.Module):
    """Point-MAE under its published names."""

    def __init__(self, sizes: dict[str, Any]) -> None:
        super().__init__()
        width, self.sizes = sizes["width"], sizes
        self.MAE_encoder = Encoder(width, sizes["depth"], sizes["heads"])
        self.MAE_decoder = Decoder(width, sizes["decoder_depth"], sizes["decoder_heads"])
        self.decoder_pos_embed = positions(width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.increase_dim = nn.Sequential(nn.Conv1d(width, 3 * sizes["group_size"], 1))

    def forward(self, points: Tensor, masked: Tensor | None = None) -> Tensor:
        center, groups = self.group(points)
        masked = self.draw(len(points)) if masked is None else masked
        latent = self.MAE_encoder(groups, center, masked)
        batch, _, _ = latent.shape
        places = torch.cat(
            [center[~masked].reshape(batch, -1, 3), center[masked].reshape(batch, -1, 3)], dim=1
        )
        hidden = places.shape[1] - latent.shape[1]
        x = torch.cat([latent, self.mask_token.expand(batch, hidden, -1)], dim=1)
        x = self.MAE_decoder.rebuilt(x, self.decoder_pos_embed(places), hidden)
        rebuilt = self.increase_dim(x.transpose(1, 2)).transpose(1, 2)
        rebuilt = rebuilt.reshape(batch * hidden, -1, 3)
        return chamfer(rebuilt, groups[masked].reshape(batch * hidden, -1, 3))

    @torch.no_grad()
    def group(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Farthest points in rows of three, then neighbours cloud by cloud."""
        count, size = self.sizes["groups"], self.sizes["group_size"]
        rows = torch.arange(len(points))
        closest = torch.full(points.shape[:2], 1e10)
        closest[points.square().sum(-1) <= 1e-3] = -1
        picked = [torch.zeros(len(points), dtype=torch.int64)]
        for _ in range(count - 1):
            distance = (points - points[rows, picked[-1]].unsqueeze(1)).square().sum(-1)
            closest = torch.minimum(closest, distance)
            picked.append(closest.argmax(-1))
        center = points[rows[:, None], torch.stack(picked, dim=1)]
        groups = []
        for cloud, middle in zip(points, center, strict=True):
            near = torch.cdist(middle, cloud).topk(size, largest=False).indices
            groups.append(cloud[near] - middle.unsqueeze(1))
        return center, torch.stack(groups)

    def draw(self, batch: int) -> Tensor:
        count = self.sizes["groups"]
        hidden = int(self.sizes["ratio"] * count)
        masks = torch.zeros(batch, count, dtype=torch.bool)
        for row in range(batch):
            masks[row, torch.randperm(count)[:hidden]] = True
        return masks


def chamfer(a: Tensor, b: Tensor) -> Tensor:
    table = (a.unsqueeze(2) - b.unsqueeze(1)).square().sum(-1)
    return table.min(2).values.mean() + table.min(1).values.mean()


def check_plain() -> None:
    """The plain side on the golden case, loss and gradients.

    Raises:
        SystemExit: it does not pass.
    """
    case = load_file(GOLDEN)
    sizes = json.loads(GOLDEN.with_suffix(".json").read_text())["hparams"]
    plain = PlainPointMAE(
        {
            "width": sizes["trans_dim"],
            "depth": sizes["depth"],
            "heads": sizes["num_heads"],
            "decoder_depth": sizes["decoder_depth"],
            "decoder_heads": sizes["decoder_num_heads"],
            "groups": sizes["num_group"],
            "group_size": sizes["group_size"],
            "ratio": sizes["mask_ratio"],
        }
    )
    state = {
        name.removeprefix("state."): t for name, t in case.items() if name.startswith("state.")
    }
    plain.load_state_dict(state)
    loss = plain(case["points"], case["mask"].bool())
    loss.backward()
    apart = abs(float(loss.detach()) / float(case["loss"]) - 1)
    for name, parameter in plain.named_parameters():
        if f"grad.{name}" in case:
            stored = case[f"grad.{name}"]
            apart = max(apart, float((parameter.grad - stored).norm() / stored.norm()) / 100)
    if not apart < 1e-5:
        raise SystemExit(f"the plain side does not pass the golden case: {apart:.1e}")
