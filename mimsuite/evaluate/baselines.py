"""Baselines that a probe must beat."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mimsuite.methods import Method, build
from mimsuite.noise import key_of

if TYPE_CHECKING:
    from mimsuite.config import Resolved

VARIANTS = ("pretrained", "random_init", "raw_input", "majority")


def majority_scores(train_labels: Tensor, samples: int, classes: int) -> Tensor:
    """(samples, classes) float32 scores, the same in every row: the training class frequencies."""
    return torch.bincount(train_labels, minlength=classes).float().expand(samples, -1)


def random_init(resolved: Resolved) -> Method:
    """The recipe's method with the initial weights of its run, drawn by ``train.seed``.

    The states of the caller's random generators are restored.
    """
    with torch.random.fork_rng():
        torch.manual_seed(key_of(resolved.recipe.train.seed, "weights"))
        return build(resolved.recipe)
