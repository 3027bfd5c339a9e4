"""The decoder of a representation autoencoder: a ViT from tokens to pixels (Zheng et al.,
arXiv:2510.11690).

Letters: B batch, N tokens, C their width, E decoder width, P = p*p*3 pixels per patch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimsuite.config.keys.rae import TokenDecoderSection
from mimsuite.models.blocks import Block
from mimsuite.models.position_table import position_table


class TokenDecoder(nn.Module):
    """Linear layer, a class token of its own, positions, blocks, norm, pixels.

    The position table starts as sin-cos codes and is trained. Linear layers keep torch's own
    initialisation.
    """

    def __init__(
        self, section: TokenDecoderSection, inputs: int, grid: tuple[int, int], pixels: int
    ) -> None:
        super().__init__()
        width, eps = section.width, section.norm_eps
        self.grid = grid
        self.embed = nn.Linear(inputs, width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = position_table(width, grid, 1, trained=True)
        ratio = section.mlp_width / width
        blocks = [Block(width, section.heads, ratio, eps) for _ in range(section.depth)]
        for block in blocks:
            hidden = section.mlp_width  # the ratio may round it down
            block.mlp.fc1, block.mlp.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.pred = nn.Linear(width, pixels)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, P).

        Tokens of another square grid are resized bilinearly.
        """
        x = self._on_grid(self.embed(tokens))
        x = torch.cat([self.cls_token.expand(len(x), -1, -1).to(x.dtype), x], dim=1)
        x = x + self.pos_embed
        for block in self.blocks:
            x = block(x)
        predicted: Tensor = self.pred(self.norm(x))
        return predicted[:, 1:]

    def _on_grid(self, x: Tensor) -> Tensor:
        rows, columns = self.grid
        if x.shape[1] == rows * columns:
            return x
        side = round(x.shape[1] ** 0.5)
        maps = x.transpose(1, 2).unflatten(2, (side, side))
        resized = F.interpolate(maps, size=self.grid, mode="bilinear", align_corners=False)
        return resized.flatten(2).transpose(1, 2)
