"""The source that a recipe trains on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mimsuite.config.keys.shared import Recipe
from mimsuite.data.source import Source
from mimsuite.data.sources.few import Subset, few_of_each_class
from mimsuite.data.sources.folds import split_fold
from mimsuite.data.sources.joined import JoinedSource
from mimsuite.data.sources.opening import open_source
from mimsuite.data.stores import ShardCache
from mimsuite.data.views import views_of
from mimsuite.errors import UserError
from mimsuite.paths import expand_path


def open_split(recipe: Recipe, split: str) -> Source:
    """Open a split of ``data.source`` by the recipe's ``data`` section.

    Raises:
        UserError: the recipe names no data; and the errors of :func:`open_source`.
    """
    if not recipe.data.source:
        raise UserError(
            "the recipe names no data: give it with --data (a folder, a list file, tar shards, or "
            "embedded:NAME)"
        )
    return _open(recipe, recipe.data.source, split, recipe.data.root)


def open_training_set(recipe: Recipe) -> Source:
    """Open ``data.split`` without ``data.fold``, reduced by ``data.per_class`` and ``data.limit``;
    or the mixture.

    Raises:
        UserError: keys exclude each other; and the errors of :func:`open_split`.
    """
    if recipe.data.mixture is not None:
        return _open_mixture(recipe)
    source = open_learnable(recipe, recipe.data.split)
    if recipe.data.folds is not None:
        source, _ = split_fold(source, recipe.data.folds, recipe.data.fold)
    if recipe.data.per_class is not None:
        source = few_of_each_class(source, recipe.data.per_class, recipe.train.seed)
    if recipe.data.limit is not None and recipe.data.limit < len(source):
        spread = np.linspace(0, len(source) - 1, recipe.data.limit).round().astype(np.int64)
        source = Subset(source, spread)
    return source


def open_fold(recipe: Recipe) -> Source | None:
    """The fold of ``data.split`` that training holds out; None without ``data.folds``."""
    if recipe.data.folds is None:
        return None
    source = open_learnable(recipe, recipe.data.split)
    _, held = split_fold(source, recipe.data.folds, recipe.data.fold)
    return held


def open_learnable(recipe: Recipe, split: str) -> Source:
    """:func:`open_split`, of the samples that the recipe can learn from or be scored on: where it
    learns label maps, those that have one; the others count as unused. A source without any is left
    as it is."""
    source = open_split(recipe, split)
    if not views_of(recipe).learns_labels:
        return source
    has = np.array([source.has_label_map(*source.locate(n)) for n in range(len(source))], bool)
    if has.all() or not has.any():
        return source
    lacking = (source.key(*source.locate(int(n))) for n in np.flatnonzero(~has))
    source.unused.add("samples without a label map", lacking)
    return Subset(source, np.flatnonzero(has))


def _open_mixture(recipe: Recipe) -> JoinedSource:
    for key in ("source", "root", "folds", "per_class", "limit"):
        if getattr(recipe.data, key):
            raise UserError(f"data.mixture and data.{key} exclude each other: set one to null")
    return JoinedSource(
        [_open(recipe, one.source, one.split, one.root) for one in recipe.data.mixture or ()]
    )


def _open(recipe: Recipe, spec: str, split: str, root: str | None) -> Source:
    data = recipe.data
    source = open_source(
        spec,
        split,
        modality=recipe.recipe.modality,
        channels=data.channels,
        verify=data.verify,
        max_pixels=data.max_pixels,
        max_bytes=data.max_bytes,
        root=None if root is None else Path(expand_path(root)),
        cache=ShardCache(Path(expand_path(data.cache)), data.cache_gib) if data.cache else None,
    )
    if data.targets != "classes":
        source.take_targets(data.targets)
    return source
