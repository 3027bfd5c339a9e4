"""What can go wrong with a sample that a probe is tested on; by modality, see ``corrupt_*.py``.

Every draw is keyed by the sample, so a corrupted test set is the same for all models.
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
    """One way to spoil a sample.

    Attributes:
        name: as results have it.
        strengths: of the severities 1, 2 and 3.
        unit: what a strength is, in words.
        apply: (view, strength, generator) -> a new view of the same shape and dtype.
    """

    name: str
    strengths: tuple[float, float, float]
    unit: str
    apply: Callable[[Tensor, float, np.random.Generator], Tensor]


def corruptions_of(modality: str) -> tuple[Corruption, ...]:
    """All that are known for a modality.

    Raises:
        UserError: none.
    """
    module = modalities.get(modality).corruptions
    if module is None:
        raise UserError(f"there are no corruptions of {modality} samples")
    found: tuple[Corruption, ...] = import_module(module).CORRUPTIONS
    return found


def corrupt(batch: Batch, view: str, corruption: Corruption, severity: int, seed: int) -> Batch:
    """A batch as the loader made it, its main ``view`` spoilt; severities are 1, 2 and 3.

    The generator is keyed by (seed, name, sample), so a sample's noise only grows with severity.
    """
    strength = corruption.strengths[severity - 1]
    rows = [
        corruption.apply(row, strength, keyed_rng(seed, "corruption", corruption.name, key))
        for row, key in zip(batch.views[view], batch.keys, strict=True)
    ]
    return replace(batch, views={**batch.views, view: torch.stack(rows)})
