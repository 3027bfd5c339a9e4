"""Matching pursuit as an encoder (arXiv:2506.03093): one atom after the other, the best first."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mimsuite.dictionaries.base import Dictionary


class PursuitDictionary(Dictionary):
    """``active`` times, the atom that is most like what is left is taken off it.

    The sign counts: an atom is chosen for a positive product. One may be chosen again. Gradients go
    through all steps but the choices. There is no encoder: the atoms are all that is trained. The
    pre-codes are what is left in the end (B, D).

    Args:
        active: steps, and so codes a row at most.
        dropout: probability that training hides an atom from the pursuit of a batch.
    """

    def __init__(self, atoms: nn.Module, active: int, dropout: float = 0.0) -> None:
        super().__init__(atoms)
        self.active, self.dropout = active, dropout

    def keep(self, atoms: Tensor) -> Tensor | None:
        """(C,) 1 of the atoms that a pursuit may take; ``None``: all."""
        if not (self.training and self.dropout):
            return None
        return torch.empty(len(atoms), device=atoms.device).bernoulli_(1 - self.dropout)

    def select(self, x: Tensor, atoms: Tensor) -> tuple[Tensor, Tensor]:
        keep = self.keep(atoms)
        return self.pursue(x, atoms if keep is None else atoms * keep[:, None])

    def pursue(self, x: Tensor, atoms: Tensor) -> tuple[Tensor, Tensor]:
        """What is left (B, D) and codes (B, C)."""
        left, codes = x, x.new_zeros(len(x), len(atoms))
        for _ in range(self.active):
            with torch.no_grad():
                best = (left @ atoms.T).argmax(dim=1)  # (B,)
            chosen = atoms[best]  # (B, D)
            code = (left * chosen).sum(dim=1, keepdim=True)
            codes = codes.scatter_add(1, best[:, None], code)
            left = left - code * chosen
        return left, codes
