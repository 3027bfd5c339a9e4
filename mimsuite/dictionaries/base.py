"""Base classes of sparse dictionaries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mimsuite.dictionaries.encoders import Coder


@dataclass(frozen=True)
class Coded:
    """Output of a dictionary for a batch of rows.

    Attributes:
        before: (B, C) pre-codes, before rectification and selection; for pursuits, the final
            residual (B, D).
        codes: (B, C), mostly 0.
        output: (B, D) reconstruction ``codes @ atoms``.
        atoms: (C, D) atoms used for it.
    """

    before: Tensor
    codes: Tensor
    output: Tensor
    atoms: Tensor


class Dictionary(nn.Module):
    """Maps rows (B, D) to :class:`Coded`. It has no bias, as its input rows are centred.

    Args:
        atoms: a module that returns (C, D) atoms.
    """

    def __init__(self, atoms: nn.Module) -> None:
        super().__init__()
        self.dictionary = atoms

    def atoms(self) -> Tensor:
        """(C, D) atoms, projected and scaled."""
        atoms: Tensor = self.dictionary()
        return atoms

    def select(self, x: Tensor, atoms: Tensor) -> tuple[Tensor, Tensor]:
        """Pre-codes and codes of rows (B, D)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Coded:
        """Code rows (B, D) and reconstruct them."""
        atoms = self.atoms()
        before, codes = self.select(x, atoms)
        return Coded(before, codes, codes @ atoms, atoms)

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """(B, C) codes of rows (B, D)."""
        return self.select(x, self.atoms())[1]

    def threshold(self) -> Tensor | None:
        """Fixed threshold of the pre-codes, a scalar or (C,); ``None`` where there is none."""
        return None

    def published(self) -> dict[str, Tensor]:
        """The state under the published layout's keys."""
        return {k: v for k, v in self.state_dict().items() if k != "running_threshold"}


class Selecting(Dictionary):
    """A dictionary with an encoder, which selects some of its rectified pre-codes."""

    def __init__(self, atoms: nn.Module, encoder: Coder) -> None:
        super().__init__(atoms)
        self.encoder = encoder

    def pick(self, rectified: Tensor) -> Tensor:
        """(B, C) codes of rectified pre-codes."""
        raise NotImplementedError

    def select(self, x: Tensor, atoms: Tensor) -> tuple[Tensor, Tensor]:
        before = self.encoder(x)
        return before, self.pick(before.relu())


# Atoms, and a factory of the encoder for kinds that have one.
Parts = tuple[nn.Module, Callable[[], Coder]]
