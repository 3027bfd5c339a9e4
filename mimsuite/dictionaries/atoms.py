"""The atoms of a dictionary, and the projection that keeps them in bounds.

In training mode, every forward pass first overwrites the weights with their projection, without
gradient. So gradients are taken at the projected weights, and the optimizer does not see the
projection.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mimsuite.config.keys.dictionaries import Projection

_EPS = 1e-8


def project(weights: Tensor, kind: Projection) -> Tensor:
    """Divide rows (C, D) by their norm (``l2``, ``l1``), by the largest norm of all rows
    (``max_l2``, ``max_l1``), or not at all (``identity``)."""
    if kind == "identity":
        return weights
    norms = weights.norm(p=1 if kind.endswith("l1") else 2, dim=1, keepdim=True)  # (C, 1)
    return weights / (norms.max() if kind.startswith("max") else norms + _EPS)


class Atoms(nn.Module):
    """Free atoms under a projection, times ``exp(multiplier)``.

    Args:
        codes: C.
        width: D.
        projection: see :func:`project`.
        multiplier: train the common scale; else it stays 1.
    """

    multiplier: Tensor

    def __init__(
        self, codes: int, width: int, projection: Projection = "l2", multiplier: bool = False
    ) -> None:
        super().__init__()
        self.projection = projection
        self._weights = nn.Parameter(torch.empty(codes, width))
        nn.init.xavier_uniform_(self._weights)
        _add_multiplier(self, multiplier)

    def forward(self) -> Tensor:
        """(C, D) atoms, projected and scaled."""
        with torch.no_grad():
            projected = project(self._weights, self.projection)
            if self.training:
                self._weights.copy_(projected)
        weights = self._weights if self.training else projected
        return weights * self.multiplier.exp()


class ArchetypalAtoms(nn.Module):
    """Convex mixtures of data points, plus a bounded residual (arXiv:2502.12892).

    Args:
        points: (P, D) candidate points; atom i is initialised to point i.
        codes: C.
        delta: largest norm of an atom's residual; 0: strictly archetypal.
        multiplier: train a common scale.
    """

    C: Tensor
    multiplier: Tensor

    def __init__(
        self, points: Tensor, codes: int, delta: float = 1.0, multiplier: bool = True
    ) -> None:
        super().__init__()
        self.delta = delta
        self.register_buffer("C", points)  # published name; it holds the candidates, not the codes
        self.W = nn.Parameter(torch.eye(codes, len(points)))  # (C, P)
        self.Relax = nn.Parameter(torch.zeros(codes, points.shape[1]))  # (C, D)
        _add_multiplier(self, multiplier)

    def forward(self) -> Tensor:
        """(C, D) atoms, projected and scaled."""
        with torch.no_grad():
            mixture = self.W.relu()
            mixture = mixture / (mixture.sum(dim=1, keepdim=True) + _EPS)
            norms = self.Relax.norm(dim=1, keepdim=True)
            # A residual of zero stays zero for every delta; the clamp avoids 0 / 0.
            scale = torch.where(norms > 0, self.delta / norms.clamp(min=1e-30), 1.0).clamp(max=1)
            rest = self.Relax * scale
            if self.training:
                self.W.copy_(mixture)
                self.Relax.copy_(rest)
        if self.training:
            mixture, rest = self.W, self.Relax
        return (mixture @ self.C + rest) * self.multiplier.exp()


def _add_multiplier(atoms: nn.Module, trained: bool) -> None:
    start = torch.tensor(0.0)
    if trained:
        atoms.multiplier = nn.Parameter(start)
    else:
        atoms.register_buffer("multiplier", start)
