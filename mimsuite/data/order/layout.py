"""The lanes and blocks of a run: chosen when it begins, and kept in its checkpoints.

Another layout is another order of samples. So a resumed run reads by the layout of its checkpoint,
even where a new run would choose another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mimsuite.config.keys.shared import Recipe
from mimsuite.data.order.sample_order import MOST_LANES, default_lanes
from mimsuite.errors import UserError

_FORMER_LANES = 64  # the most of runs whose checkpoints do not say


@dataclass(frozen=True)
class Layout:
    """How the samples of a set are cut.

    Attributes:
        lanes: readers per global batch.
        block: samples of a lane that are shuffled together.
    """

    lanes: int
    block: int

    def facts(self) -> dict[str, int]:
        """As kept in a checkpoint and named in the run's events."""
        return asdict(self)


def layout_of(recipe: Recipe, sets: Sequence[int]) -> Layout:
    """The layout of a new run.

    More lanes have smaller blocks, so that not more is read, opened and fetched at the same time.

    Args:
        sets: samples of each set of a mixture; a lane must have some of each. Empty without one.
    """
    if recipe.data.lanes is not None:
        return Layout(recipe.data.lanes, recipe.data.block)
    lanes = default_lanes(recipe.train.global_batch, min([MOST_LANES, *sets]))
    return Layout(lanes, max(1, min(recipe.data.block, recipe.data.block * _FORMER_LANES // lanes)))


def layout_of_run(
    recipe: Recipe, document: Mapping[str, Any], facts: Mapping[str, Any]
) -> Layout | None:
    """The layout of a run that is resumed.

    Args:
        recipe: to go on with.
        document: the recipe in the checkpoint.
        facts: of the checkpoint.

    Returns:
        None where the global batch is another one, so that the order cannot be kept.

    Raises:
        UserError: the recipe asks for another layout.
    """
    data, batch = document["data"], document["train"]["global_batch"]
    if batch != recipe.train.global_batch:
        return None
    former = {
        "lanes": data.get("lanes") or default_lanes(batch, _FORMER_LANES),
        "block": data["block"],
    }
    own = Layout(**facts.get("order", former))
    asked = {"data.lanes": (recipe.data.lanes, own.lanes)}
    asked["data.block"] = (recipe.data.block, data["block"])
    for key, (now, before) in asked.items():
        if now is not None and now != before:
            raise UserError(
                f"this run reads its samples with {key}={before}; with {key}={now} they would come "
                f"in another order, some twice and some not at all: go on with {key}={before}, or "
                f"start a new run from the weights with --init-from"
            )
    return own
