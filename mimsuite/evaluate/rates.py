"""Choosing a learning rate on samples that are neither trained nor tested on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from mimsuite import config
from mimsuite.data import open_fold
from mimsuite.evaluate.metrics import balanced_accuracy
from mimsuite.report.console import say

if TYPE_CHECKING:
    from mimsuite.config import Resolved
    from mimsuite.data import Source

_FOLDS = 5  # a fifth of the training split is held out

# Trains by a recipe in a folder and predicts a source: (predicted, true) classes.
Trial = Callable[["Resolved", Path, "Source"], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Choice:
    """What was tried and taken.

    Attributes:
        lr: the rate with the best balanced accuracy on the held-out fold, the lower on a tie.
        tried: rate -> that accuracy.
    """

    lr: float
    tried: dict[float, float]

    def as_dict(self) -> dict[str, Any]:
        """As results carry it."""
        tried = {f"{lr:g}": value for lr, value in self.tried.items()}
        return {"learning_rate": self.lr, "tried": tried}


def choose_rate(recipe: Resolved, factors: Sequence[float], out: Path, trial: Trial) -> Choice:
    """Train once for each rate without a fifth of the training split, and score on that fifth.

    Args:
        factors: of the recipe's rate.
        out: folder for the trials' runs.
    """
    trials = config.with_overrides(recipe, {"data.folds": _FOLDS, "data.fold": 0}, "rate grid")
    held = open_fold(trials.recipe)
    assert held is not None
    tried = {}
    for factor in sorted(factors):
        lr = recipe.recipe.lr * factor
        one = with_rate(trials, lr)
        tried[lr] = balanced_accuracy(*trial(one, out / f"lr-{lr:g}", held))
        say(f"rate {lr:g}: balanced accuracy {100 * tried[lr]:.1f} % on {len(held)} held out")
    return Choice(max(tried, key=lambda lr: tried[lr]), tried)


def with_rate(recipe: Resolved, lr: float) -> Resolved:
    """The recipe at another peak rate."""
    return config.with_overrides(recipe, {"optim.lr": lr, "optim.lr_per_256": None}, "rate grid")
