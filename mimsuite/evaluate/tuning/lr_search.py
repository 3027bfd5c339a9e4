"""Choose a learning rate on samples that are used neither for training nor for testing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimsuite import config
from mimsuite.console import say
from mimsuite.data import open_fold
from mimsuite.evaluate.scoring.scorer import Figure

if TYPE_CHECKING:
    from mimsuite.config import Resolved
    from mimsuite.data import Source

_FOLDS = 5  # a fifth of the training split is held out

# Train by a recipe in a folder and score on a source.
Trial = Callable[["Resolved", Path, "Source"], float]


@dataclass(frozen=True)
class Choice:
    """The learning rates tried and the one chosen.

    Attributes:
        lr: the rate with the best figure on the held-out fold; ties go to the lower rate.
        tried: rate -> its figure.
    """

    lr: float
    tried: dict[float, float]

    def as_dict(self) -> dict[str, Any]:
        """The form stored in results."""
        tried = {f"{lr:g}": value for lr, value in self.tried.items()}
        return {"learning_rate": self.lr, "tried": tried}


def choose_rate(
    recipe: Resolved, factors: Sequence[float], out: Path, trial: Trial, figure: Figure
) -> Choice:
    """Hold out a fifth of the training split; train once per rate on the rest and score on it.

    Args:
        factors: factors of the recipe's rate.
        out: folder for the trials' runs.
        figure: the figure that trials return.
    """
    trials = config.with_overrides(recipe, {"data.folds": _FOLDS, "data.fold": 0}, "rate grid")
    held = open_fold(trials.recipe)
    assert held is not None
    tried = {}
    for factor in sorted(factors):
        lr = recipe.recipe.lr * factor
        one = with_rate(trials, lr)
        tried[lr] = trial(one, out / f"lr-{lr:g}", held)
        say(f"rate {lr:g}: {figure.title} {figure.text(tried[lr])} on {len(held)} held out")
    return Choice(max(tried, key=lambda lr: tried[lr]), tried)


def with_rate(recipe: Resolved, lr: float) -> Resolved:
    """The recipe with another peak rate."""
    return config.with_overrides(recipe, {"optim.lr": lr, "optim.lr_per_256": None}, "rate grid")
