"""Corruptions for robustness tests; each modality has its own in ``MODALITY/corruptions.py``.

Random draws are keyed by the sample, so every model sees the same corrupted test set.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module

import numpy as np
import torch
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.data import modalities
from mimsuite.errors import UserError
from mimsuite.noise import keyed_rng


@dataclass(frozen=True)
class Corruption:
    """One kind of corruption.

    Attributes:
        name: its key in results.
        strengths: one for each of the severities 1, 2 and 3.
        unit: what a strength measures, in words.
        apply: (view, strength, generator) -> a new view of the same shape and dtype.
    """

    name: str
    strengths: tuple[float, float, float]
    unit: str
    apply: Callable[[Tensor, float, np.random.Generator], Tensor]


def corruptions_of(modality: str) -> tuple[Corruption, ...]:
    """The corruptions of a modality.

    Raises:
        UserError: the modality has none.
    """
    module = modalities.get(modality).corruptions
    if module is None:
        raise UserError(f"there are no corruptions of {modality} samples")
    found: tuple[Corruption, ...] = import_module(module).CORRUPTIONS
    return found


def corrupt(batch: Batch, view: str, corruption: Corruption, severity: int, seed: int) -> Batch:
    """Corrupt the main ``view`` of a batch from the loader; ``severity`` is 1, 2 or 3.

    The generator is keyed by (seed, name, sample): at a higher severity a sample gets the same
    noise, only stronger.
    """
    strength = corruption.strengths[severity - 1]
    rows = [
        corruption.apply(row, strength, keyed_rng(seed, "corruption", corruption.name, key))
        for row, key in zip(batch.views[view], batch.keys, strict=True)
    ]
    return replace(batch, views={**batch.views, view: torch.stack(rows)})
