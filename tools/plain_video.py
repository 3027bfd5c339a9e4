"""VideoMAE V2 written down plainly, in the published layout: the other side of bench_video.py.

All tubelets are embedded and visible ones picked by a boolean mask; attention is spelled out; the
target is made of the whole clip. Parameters bear the published names, so that the stored reference
tensors check it as they check the suite.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class PlainAttention(nn.Module):
    """Attention spelled out; keys have no bias."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias, self.v_bias = (nn.Parameter(torch.zeros(width)) for _ in range(2))
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        bias = torch.cat([self.q_bias, torch.zeros_like(self.v_bias), self.v_bias])
        qkv = F.linear(x, self.qkv.weight, bias).reshape(batch, tokens, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        weights = ((q * self.scale) @ k.transpose(-2, -1)).softmax(dim=-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(batch, tokens, width))


class PlainMlp(nn.Module):
    """Two linear maps around a GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class PlainBlock(nn.Module):
    """Pre-norm block."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(width, eps=1e-6) for _ in range(2))
        self.attn = PlainAttention(width, heads)
        self.mlp = PlainMlp(width, int(width * mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PlainEncoder(nn.Module):
    """Embeds all tubelets, then drops the hidden ones."""

    def __init__(
        self, width: int, depth: int, heads: int, mlp_ratio: float, tubelet: int, patch: int
    ) -> None:
        super().__init__()
        size = (tubelet, patch, patch)
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv3d(3, width, size, size)
        self.blocks = nn.ModuleList(PlainBlock(width, heads, mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, clips: Tensor, hidden: Tensor) -> Tensor:
        x = self.patch_embed.proj(clips).flatten(2).transpose(1, 2)
        x = x + sinusoid(x.shape[1], x.shape[2])
        x = x[~hidden].reshape(len(x), -1, x.shape[-1])
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class PlainDecoder(nn.Module):
    """Blocks over all tokens, a head on the last ones."""

    def __init__(self, width: int, depth: int, heads: int, mlp_ratio: float, out: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(PlainBlock(width, heads, mlp_ratio) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, out)

    def forward(self, x: Tensor, wanted: int) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[:, -wanted:]))


class PlainVideoMAE(nn.Module):
    """Loss and prediction of clips under given masks; sizes as in a recipe's ``model`` section."""

    def __init__(self, encoder: dict, decoder: dict) -> None:
        super().__init__()
        self.tubelet, self.patch = encoder["tubelet"], encoder["patch_size"]
        self.encoder = PlainEncoder(
            encoder["width"],
            encoder["depth"],
            encoder["heads"],
            encoder["mlp_ratio"],
            self.tubelet,
            self.patch,
        )
        self.decoder = PlainDecoder(
            decoder["width"],
            decoder["depth"],
            decoder["heads"],
            decoder["mlp_ratio"],
            self.tubelet * self.patch**2 * 3,
        )
        self.encoder_to_decoder = nn.Linear(encoder["width"], decoder["width"], bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder["width"]))

    def forward(self, clips: Tensor, hidden: Tensor, skipped: Tensor) -> tuple[Tensor, Tensor]:
        """(loss, prediction) of (B, 3, T, H, W) clips.

        Args:
            hidden: (B, N) bool, True = not seen by the encoder.
            skipped: (B, N) bool, True = not decoded.
        """
        batch = len(clips)
        x = self.encoder_to_decoder(self.encoder(clips, hidden))
        width = x.shape[-1]
        positions = sinusoid(hidden.shape[1], width).expand(batch, -1, -1)
        seen = positions[~hidden].reshape(batch, -1, width)
        asked = positions[~skipped].reshape(batch, -1, width)
        x = torch.cat([x + seen, self.mask_token + asked], dim=1)
        prediction = self.decoder(x, asked.shape[1])
        with torch.no_grad():
            labels = self.target(clips)
            labels = labels[~skipped].reshape(batch, -1, labels.shape[-1])
            counted = hidden[~skipped].reshape(batch, -1)
        errors = F.mse_loss(prediction, labels, reduction="none").mean(dim=-1)
        return (errors * counted).sum() / counted.sum(), prediction

    def target(self, clips: Tensor) -> Tensor:
        """(B, N, P): every tubelet and colour of the whole clip by its mean and deviation."""
        mean, std = (torch.tensor(v)[None, :, None, None, None] for v in (MEAN, STD))
        pixels = clips * std + mean
        b, c, t, h, w = pixels.shape
        k, p = self.tubelet, self.patch
        tokens = pixels.reshape(b, c, t // k, k, h // p, p, w // p, p)
        tokens = tokens.permute(0, 2, 4, 6, 3, 5, 7, 1).reshape(b, -1, k * p * p, c)
        deviation = tokens.var(dim=-2, unbiased=True, keepdim=True).sqrt() + 1e-6
        return ((tokens - tokens.mean(dim=-2, keepdim=True)) / deviation).flatten(2)


_tables: dict[tuple[int, int], Tensor] = {}


def sinusoid(tokens: int, width: int) -> Tensor:
    """(1, tokens, width), made once."""
    if (tokens, width) not in _tables:
        column = torch.arange(width)
        angle = torch.arange(tokens).double()[:, None] / 10000 ** (2 * (column // 2) / width)
        table = torch.where(column % 2 == 0, angle.sin(), angle.cos())
        _tables[tokens, width] = table.float()[None]
    return _tables[tokens, width]
