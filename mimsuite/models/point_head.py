"""The classification heads of Point-BERT, also used by Point-MAE and Point-CMAE.

Letters: B clouds, D input width, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mimsuite.noise import Noise

_HIDDEN = 256


class PointHead(nn.Module):
    """(B, D) -> (B, K) logits.

    ``linear``: one layer. ``mlp3``: three layers, the first two followed by batch norm, ReLU and
    dropout from keyed noise.
    """

    def __init__(self, width: int, classes: int, kind: str, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        layers: list[nn.Module] = []
        if kind == "mlp3":
            for size in (width, _HIDDEN):
                # KeyedDrop stands for the published dropout, so that layer numbers agree.
                layers += [
                    nn.Linear(size, _HIDDEN),
                    nn.BatchNorm1d(_HIDDEN),
                    nn.ReLU(),
                    KeyedDrop(),
                ]
            width = _HIDDEN
        self.layers = nn.Sequential(*layers, nn.Linear(width, classes))
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, noise: Noise | None = None) -> Tensor:
        """Logits; ``noise`` is needed while training with dropout."""
        for number, layer in enumerate(self.layers):
            if not isinstance(layer, KeyedDrop):
                x = layer(x)
            elif self.training and self.dropout > 0:
                if noise is None:
                    raise ValueError("dropout > 0 needs keyed noise while training")
                kept = noise.rows(f"dropout {number}", x.shape[1]) >= self.dropout
                x = torch.where(kept, x / (1 - self.dropout), 0.0)
        return x


class KeyedDrop(nn.Identity):
    """Marks the place of a dropout that the head itself applies."""
