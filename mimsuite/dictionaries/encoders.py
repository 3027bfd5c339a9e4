"""Encoders from features to pre-codes: a linear layer, optionally after a small network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mimsuite.config.keys.dictionaries import CoderName


class Coder(nn.Module):
    """Pre-codes (B, C) of rows (B, D).

    Args:
        width: D.
        codes: C.
        name: ``linear``: one layer; ``mlp_ln_1``, ``mlp_bn_1``: a layer or batch norm after it;
            ``mlp_ln_3``, ``mlp_bn_3``: two blocks of width D before these.
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
        codes: Tensor = self.final_block(x)
        return codes

    @torch.no_grad()
    def tie(self, atoms: Tensor) -> None:
        """Initialise the linear layer with the transposed atoms (C, D) and zero bias."""
        linear = self.final_block[0]
        assert isinstance(linear, nn.Linear)
        linear.weight.copy_(atoms)
        linear.bias.zero_()
