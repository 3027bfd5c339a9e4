"""From features to pre-codes: a linear layer, or a small network before it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mimsuite.config.keys.dictionaries import CoderName


class Coder(nn.Module):
    """Pre-codes (B, C) of rows (B, D).

    Args:
        width: D.
        codes: C.
        name: ``linear``; ``mlp_ln_1`` and ``mlp_bn_1`` with a layer or batch norm behind it;
            ``mlp_ln_3`` and ``mlp_bn_3`` with two blocks of width D before that.
    """

    def __init__(self, width: int, codes: int, name: CoderName = "linear") -> None:
        super().__init__()
        norm = nn.BatchNorm1d if "_bn_" in name else nn.LayerNorm
        blocks = 2 if name.endswith("_3") else 0
        if blocks:
            self.mlp_blocks = nn.Sequential(
                *(nn.Sequential(nn.Linear(width, width), norm(width), nn.ReLU()) for _ in "12")
            )
        last: list[nn.Module] = [nn.Linear(width, codes)]
        if name != "linear":
            last.append(norm(codes))
        self.final_block = nn.Sequential(*last)
        self._blocks = blocks

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) -> (B, C)."""
        if self._blocks:
            x = self.mlp_blocks(x)
        found: Tensor = self.final_block(x)
        return found

    @torch.no_grad()
    def tie(self, atoms: Tensor) -> None:
        """Start the linear layer as the transposed atoms (C, D), without bias."""
        linear = self.final_block[0]
        assert isinstance(linear, nn.Linear)
        linear.weight.copy_(atoms)
        linear.bias.zero_()
