"""The atoms of a dictionary, and what keeps them in bounds.

While training, every read first writes the projected weights back, without gradient: gradients are
the plain ones at the projected weights, and the optimizer does not know of the projection.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mimsuite.config.keys.dictionaries import Projection

_EPS = 1e-8


def project(weights: Tensor, kind: Projection) -> Tensor:
    """Rows (C, D) of unit norm (``l2``, ``l1``), all by the largest norm (``max_l2``, ``max_l1``),
    or as they are (``identity``)."""
    if kind == "identity":
        return weights
    norms = weights.norm(p=1 if kind.endswith("l1") else 2, dim=1, keepdim=True)  # (C, 1)
    return weights / (norms.max() if kind.startswith("max") else norms + _EPS)


class Atoms(nn.Module):
    """Free atoms under a projection, times ``exp(multiplier)``.

    Args:
        codes: C.
        width: D.
        projection: of :func:`project`.
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
        """(C, D) atoms in force."""
        with torch.no_grad():
            projected = project(self._weights, self.projection)
            if self.training:
                self._weights.copy_(projected)
        weights = self._weights if self.training else projected
        return weights * self.multiplier.exp()


class ArchetypalAtoms(nn.Module):
    """Convex mixtures of points of the data, plus a bounded rest (arXiv:2502.12892).

    Args:
        points: (P, D) candidates; the first ones are the first atoms at the start.
        codes: C.
        delta: largest norm of the rest of an atom; 0: strictly archetypal.
        multiplier: train a common scale.
    """

    C: Tensor
    multiplier: Tensor

    def __init__(
        self, points: Tensor, codes: int, delta: float = 1.0, multiplier: bool = True
    ) -> None:
        super().__init__()
        self.delta = delta
        self.register_buffer("C", points)  # a name of the published layout: candidates, not codes
        self.W = nn.Parameter(torch.eye(codes, len(points)))  # (C, P)
        self.Relax = nn.Parameter(torch.zeros(codes, points.shape[1]))  # (C, D)
        _add_multiplier(self, multiplier)

    def forward(self) -> Tensor:
        """(C, D) atoms in force."""
        with torch.no_grad():
            mixture = self.W.relu()
            mixture = mixture / (mixture.sum(dim=1, keepdim=True) + _EPS)
            norms = self.Relax.norm(dim=1, keepdim=True)
            # An atom without rest keeps none, whatever delta: 0 / 0 must not come up.
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
