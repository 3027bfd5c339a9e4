"""Centring and scaling of features before coding, as dictionaries have no bias."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_BLOCK = 65536  # rows summed together


@dataclass(frozen=True)
class Scaling:
    """Subtracts ``mean`` (D,), then divides by the scalar ``scale``: the mean squared norm is D."""

    mean: Tensor
    scale: Tensor

    @classmethod
    def of(cls, table: np.ndarray) -> Scaling:
        """The scaling fitted to rows (M, D)."""
        total, squares = np.zeros(table.shape[1]), np.zeros(table.shape[1])
        for start in range(0, len(table), _BLOCK):
            block = table[start : start + _BLOCK].astype(np.float64)
            total += block.sum(axis=0)
            squares += np.square(block).sum(axis=0)
        mean = total / len(table)
        variance = np.maximum(squares / len(table) - np.square(mean), 0).mean()
        scale = max(float(variance) ** 0.5, 1e-12)
        return cls(torch.from_numpy(mean).float(), torch.tensor(scale))

    def scaled(self, features: Tensor) -> Tensor:
        """Features (B, D) -> scaled float32 rows (B, D)."""
        return (features.float() - self.mean) / self.scale

    def restored(self, rows: Tensor) -> Tensor:
        """Inverse of :meth:`scaled`."""
        return rows * self.scale + self.mean

    def to(self, device: torch.device) -> Scaling:
        """Copy to another device."""
        return Scaling(self.mean.to(device), self.scale.to(device))
