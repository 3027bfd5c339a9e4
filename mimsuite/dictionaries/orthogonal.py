"""Orthogonal matching pursuit: all codes of the row are refitted after each chosen atom."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mimsuite.dictionaries.pursuit import PursuitDictionary


class OrthogonalDictionary(PursuitDictionary):
    """A pursuit in which no atom is chosen twice and codes are non-negative.

    Codes are computed without gradient; atoms get gradients only through the reconstruction.

    Args:
        fit_steps: gradient steps of each fit of the codes.
    """

    def __init__(
        self, atoms: nn.Module, active: int, dropout: float = 0.0, fit_steps: int = 10
    ) -> None:
        super().__init__(atoms, active, dropout)
        self.fit_steps = fit_steps

    @torch.no_grad()
    def pursue(self, x: Tensor, atoms: Tensor) -> tuple[Tensor, Tensor]:
        left = x
        places = torch.empty(len(x), 0, dtype=torch.int64, device=x.device)  # (B, s)
        values = x.new_empty(len(x), 0)  # (B, s)
        for _ in range(min(self.active, len(atoms))):
            likeness = (left @ atoms.T).scatter(1, places, -torch.inf)
            places = torch.cat([places, likeness.argmax(dim=1, keepdim=True)], dim=1)
            values = torch.cat([values, values.new_zeros(len(x), 1)], dim=1)
            chosen = atoms[places]  # (B, s, D)
            values = non_negative_fit(chosen, x, values, self.fit_steps)
            left = x - torch.einsum("bs,bsd->bd", values, chosen)
        codes = x.new_zeros(len(x), len(atoms)).scatter(1, places, values)
        return left, codes


def non_negative_fit(
    atoms: Tensor, x: Tensor, start: Tensor, steps: int, tolerance: float = 1e-5
) -> Tensor:
    """Non-negative least squares: codes (B, s) for rows ``x`` (B, D) and their atoms (B, s, D).

    Projected gradient descent from ``start``. It stops early when the gradient norm of the whole
    batch is below ``tolerance``.
    """
    products = atoms @ atoms.transpose(1, 2)  # (B, s, s)
    target = torch.einsum("bsd,bd->bs", atoms, x)
    rate = 1 / (products.flatten(1).norm(dim=1, keepdim=True) + 1e-8)  # (B, 1)
    codes = start
    for _ in range(steps):
        gradient = torch.einsum("bst,bt->bs", products, codes) - target
        codes = (codes - rate * gradient).clamp(min=0)
        if gradient.norm() < tolerance:
            break
    return codes
