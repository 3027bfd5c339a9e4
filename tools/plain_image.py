"""MAE as a plain implementation in the published layout; a peer of `bench_mae.py`.

Written from the paper and the published names: tokens shuffled by noise and put back, attention
written out, the decoder predicts every patch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

GOLDEN = Path(__file__).parents[1] / "tests/goldens/image/mae-a.safetensors"
EPS = 1e-6


class Attention(nn.Module):
    """Softmax attention written out."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        weights = ((q @ k.transpose(-2, -1)) * self.scale).softmax(dim=-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(batch, tokens, width))


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
        self.norm1, self.attn = nn.LayerNorm(width, eps=EPS), Attention(width, heads)
        self.norm2, self.mlp = nn.LayerNorm(width, eps=EPS), Mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    """A convolution whose stride is its kernel."""

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, stride=patch)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)


class PlainMAE(nn.Module):
    """MAE under its published names; ``sizes`` as in the sidecars of the golden cases."""

    def __init__(self, sizes: dict[str, Any]) -> None:
        super().__init__()
        self.patch, self.ratio = sizes["patch_size"], sizes["mask_ratio"]
        width, thin = sizes["embed_dim"], sizes["decoder_embed_dim"]
        tokens = (sizes["img_size"] // self.patch) ** 2
        fixed = {"requires_grad": False}
        self.patch_embed = PatchEmbed(self.patch, width)
        self.cls_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.pos_embed = nn.Parameter(torch.randn(1, tokens + 1, width), **fixed)
        self.blocks = nn.ModuleList(Block(width, sizes["num_heads"]) for _ in range(sizes["depth"]))
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.decoder_embed = nn.Linear(width, thin)
        self.mask_token = nn.Parameter(torch.randn(1, 1, thin) * 0.02)
        self.decoder_pos_embed = nn.Parameter(torch.randn(1, tokens + 1, thin), **fixed)
        self.decoder_blocks = nn.ModuleList(
            Block(thin, sizes["decoder_num_heads"]) for _ in range(sizes["decoder_depth"])
        )
        self.decoder_norm = nn.LayerNorm(thin, eps=EPS)
        self.decoder_pred = nn.Linear(thin, 3 * self.patch**2)

    def forward(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Loss of (B, 3, H, W) images; ``noise`` (B, N), None: drawn."""
        x = self.patch_embed(images) + self.pos_embed[:, 1:]
        batch, tokens, width = x.shape
        noise = torch.rand(batch, tokens) if noise is None else noise
        shuffle = noise.argsort(dim=1)
        restore, kept = shuffle.argsort(dim=1), int(tokens * (1 - self.ratio))
        x = x.gather(1, shuffle[:, :kept, None].expand(-1, -1, width))
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(batch, -1, -1)
        x = torch.cat([cls, x], dim=1)
        for block in self.blocks:
            x = block(x)
        x = self.decoder_embed(self.norm(x))
        hidden = self.mask_token.expand(batch, tokens - kept, -1).to(x.dtype)
        whole = torch.cat([x[:, 1:], hidden], dim=1)
        whole = whole.gather(1, restore[..., None].expand(-1, -1, x.shape[2]))
        x = torch.cat([x[:, :1], whole], dim=1) + self.decoder_pos_embed
        for block in self.decoder_blocks:
            x = block(x)
        found = self.decoder_pred(self.decoder_norm(x))[:, 1:]
        masked = (restore >= kept).float()
        return ((found - self.target(images)).square().mean(dim=2) * masked).sum() / masked.sum()

    def target(self, images: Tensor) -> Tensor:
        """(B, N, P) normalised patches, channel fastest."""
        batch, _, height, _ = images.shape
        side = height // self.patch
        cut = images.reshape(batch, 3, side, self.patch, side, self.patch)
        cut = cut.permute(0, 2, 4, 3, 5, 1).reshape(batch, side * side, -1)
        mean, variance = cut.mean(dim=2, keepdim=True), cut.var(dim=2, keepdim=True)
        return (cut - mean) / (variance + EPS).sqrt()


def check_plain() -> None:
    """The plain side on the golden case, loss and gradients.

    Raises:
        SystemExit: it does not pass.
    """
    case = load_file(GOLDEN)
    plain = PlainMAE(json.loads(GOLDEN.with_suffix(".json").read_text())["hparams"])
    state = {n.removeprefix("state."): t for n, t in case.items() if n.startswith("state.")}
    plain.load_state_dict(state)
    loss = plain(case["imgs"], case["noise"])
    loss.backward()
    apart = abs(float(loss.detach()) / float(case["loss"]) - 1)
    for name, parameter in plain.named_parameters():
        if f"grad.{name}" in case:
            stored = case[f"grad.{name}"]
            apart = max(apart, float((parameter.grad - stored).norm() / stored.norm()) / 100)
    if not apart < 1e-5:
        raise SystemExit(f"the plain side does not pass the golden case: {apart:.1e}")
