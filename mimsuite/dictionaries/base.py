"""What all sparse dictionaries have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mimsuite.dictionaries.encoders import Coder


@dataclass(frozen=True)
class Coded:
    """Rows as a dictionary has them.

    Attributes:
        before: (B, C) pre-codes, before rectification and selection; of pursuits the residual
            (B, D).
        codes: (B, C), few of them not 0.
        output: (B, D) ``codes @ atoms``.
        atoms: (C, D) as they were read for it.
    """

    before: Tensor
    codes: Tensor
    output: Tensor
    atoms: Tensor


class Dictionary(nn.Module):
    """Rows (B, D) in, :class:`Coded` out. There is no bias: rows are centred before.

    Args:
        atoms: a module that returns (C, D) atoms.
    """

    def __init__(self, atoms: nn.Module) -> None:
        super().__init__()
        self.dictionary = atoms

    def atoms(self) -> Tensor:
        """(C, D) atoms in force."""
        found: Tensor = self.dictionary()
        return found

    def select(self, x: Tensor, atoms: Tensor) -> tuple[Tensor, Tensor]:
        """Pre-codes and codes of rows (B, D)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Coded:
        """Codes of rows (B, D), and what they add up to."""
        atoms = self.atoms()
        before, codes = self.select(x, atoms)
        return Coded(before, codes, codes @ atoms, atoms)

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """(B, C) codes of rows (B, D)."""
        return self.select(x, self.atoms())[1]

    def threshold(self) -> Tensor | None:
        """What pre-codes must reach, where that is fixed: scalar or (C,)."""
        return None

    def published(self) -> dict[str, Tensor]:
        """The state under the published layout's keys."""
        return {k: v for k, v in self.state_dict().items() if k != "running_threshold"}


class Selecting(Dictionary):
    """An encoder's rectified pre-codes, of which some are selected."""

    def __init__(self, atoms: nn.Module, encoder: Coder) -> None:
        super().__init__(atoms)
        self.encoder = encoder

    def pick(self, rectified: Tensor) -> Tensor:
        """(B, C) codes of rectified pre-codes."""
        raise NotImplementedError

    def select(self, x: Tensor, atoms: Tensor) -> tuple[Tensor, Tensor]:
        before = self.encoder(x)
        return before, self.pick(before.relu())


# The atoms, and the encoder where the kind has one, are built for it.
Parts = tuple[nn.Module, Callable[[], Coder]]
