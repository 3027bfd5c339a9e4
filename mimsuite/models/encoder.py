"""What every encoder offers to methods, probes and the optimizer."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import nn

from mimsuite.batch import Batch
from mimsuite.models.features import Features
from mimsuite.noise import Noise


class Encoder(nn.Module):
    """Base of encoders.

    Attributes:
        width: D of the tokens it returns.
        depth: number of blocks.
        norm: the layer norm over its output; a classifier on the mean token takes it away.
    """

    width: int
    depth: int
    norm: nn.Module

    def __init__(self, section: Any) -> None:
        super().__init__()
        self.section = section

    def encode(
        self, batch: Batch, *, noise: Noise | None = None, layers: Collection[int] = ()
    ) -> Features:
        """Features of intact samples: the unmasked call of every probe."""
        raise NotImplementedError

    def layer_id(self, name: str) -> int:
        """Depth of a parameter for layer decay: 0 embeddings, i + 1 block i, depth + 1 the rest."""
        raise NotImplementedError
