"""Matching pursuit as an encoder (arXiv:2506.03093): atoms are chosen greedily, one at a time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mimsuite.dictionaries.base import Dictionary


class PursuitDictionary(Dictionary):
    """Subtracts from the residual its projection on the best atom, ``active`` times.

    The best atom has the largest product with the residual; negative products do not count, and an
    atom may be chosen again. Gradients flow through all steps except the choices. There is no
    encoder, so only the atoms are trained. The pre-codes are the final residual (B, D).

    Args:
        active: number of steps, the largest number of codes per row.
        dropout: probability that an atom is hidden from the pursuit of a training batch.
    """

    def __init__(self, atoms: nn.Module, active: int, dropout: float = 0.0) -> None:
        super().__init__(atoms)
        self.active, self.dropout = active, dropout

    def keep(self, atoms: Tensor) -> Tensor | None:
        """(C,) 1 for the atoms that a pursuit may choose; ``None``: all."""
        if not (self.training and self.dropout):
            return None
        return torch.empty(len(atoms), device=atoms.device).bernoulli_(1 - self.dropout)

    def select(self, x: Tensor, atoms: Tensor) -> tuple[Tensor, Tensor]:
        keep = self.keep(atoms)
        return self.pursue(x, atoms if keep is None else atoms * keep[:, None])

    def pursue(self, x: Tensor, atoms: Tensor) -> tuple[Tensor, Tensor]:
        """Residual (B, D) and codes (B, C)."""
        left, codes = x, x.new_zeros(len(x), len(atoms))
        for _ in range(self.active):
            with torch.no_grad():
                best = (left @ atoms.T).argmax(dim=1)  # (B,)
            chosen = atoms[best]  # (B, D)
            code = (left * chosen).sum(dim=1, keepdim=True)
            codes = codes.scatter_add(1, best[:, None], code)
            left = left - code * chosen
        return left, codes
