"""What a probe must beat to mean anything."""

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
    """(samples, classes) float32: how frequent each class is in training, whatever is shown."""
    return torch.bincount(train_labels, minlength=classes).float().expand(samples, -1)


def random_init(resolved: Resolved) -> Method:
    """The recipe's method with fresh weights: those its run began with, by ``train.seed``.

    The caller's generators are left as they were.
    """
    with torch.random.fork_rng():
        torch.manual_seed(key_of(resolved.recipe.train.seed, "weights"))
        return build(resolved.recipe)
