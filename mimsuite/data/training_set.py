"""The source that a recipe trains on."""

from __future__ import annotations

import numpy as np

from mimsuite.config.sections import Recipe
from mimsuite.data.few import Subset, few_of_each_class
from mimsuite.data.opening import open_source
from mimsuite.data.source import Source
from mimsuite.errors import UserError


def open_split(recipe: Recipe, split: str) -> Source:
    """A split of ``data.source``, read as the ``data`` section says.

    Raises:
        UserError: the recipe names no data; and what :func:`open_source` raises.
    """
    data = recipe.data
    if not data.source:
        raise UserError(
            "the recipe names no data: give it with --data (a folder, a list file, tar shards, or "
            "embedded:NAME)"
        )
    return open_source(
        data.source,
        split,
        channels=data.channels,
        verify=data.verify,
        max_pixels=data.max_pixels,
    )


def open_training_set(recipe: Recipe) -> Source:
    """The split ``data.split``, cut down by ``data.per_class`` and ``data.limit``."""
    source = open_split(recipe, recipe.data.split)
    if recipe.data.per_class is not None:
        source = few_of_each_class(source, recipe.data.per_class, recipe.train.seed)
    if recipe.data.limit is not None and recipe.data.limit < len(source):
        spread = np.linspace(0, len(source) - 1, recipe.data.limit).round().astype(np.int64)
        source = Subset(source, spread)
    return source
