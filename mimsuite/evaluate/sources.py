"""Open the labelled data of a probe: the training split and, if there is one, the test split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mimsuite.config.layers import COMMAND_LINE
from mimsuite.data import open_fold, open_training_set, source_splits
from mimsuite.data.packing.inspection import unused_in
from mimsuite.data.source import Source
from mimsuite.data.sources.training_set import open_learnable
from mimsuite.data.splits import split_of
from mimsuite.data.unused import Unused
from mimsuite.data.views import views_of
from mimsuite.errors import DataError, UserError

if TYPE_CHECKING:
    from mimsuite.config import Resolved


def open_labelled(resolved: Resolved, *, classes: bool = True) -> tuple[Source, Source | None]:
    """:func:`open_splits` of a labelled source, with a warning about unused content.

    Args:
        classes: whether the labels must be classes.
    """
    train, test = open_splits(resolved, labelled=classes)
    for source in (train, test):
        if source is not None:
            say_unused(resolved, source)
    return train, test


def open_said(resolved: Resolved, split: str) -> Source:
    """Open a split of the source, with a warning about unused content."""
    source = open_learnable(resolved.recipe, split)
    say_unused(resolved, source)
    return source


def say_unused(resolved: Resolved, source: Source, look: int = 16) -> None:
    """Warn about unused content of a source, for commands without a run directory."""
    unused_of(resolved, source, look).warn(f"{source.name}, split '{source.split}'")


def unused_of(
    resolved: Resolved,
    source: Source,
    look: int = 16,
    also: Callable[[Any], None] | None = None,
) -> Unused:
    """Content of a source that a recipe does not use; ``look`` samples are decoded to find it, and
    given to ``also``."""
    return unused_in(source, views_of(resolved.recipe), look, also)


def open_splits(resolved: Resolved, *, labelled: bool) -> tuple[Source, Source | None]:
    """(training split, test split or None if the source has none).

    The test split is ``data.fold`` if the set is cut into folds, otherwise ``eval.split``. If the
    source lacks ``eval.split``, ``test`` or else ``val`` is used, unless the command line set it.

    Args:
        labelled: whether both must have class labels.

    Raises:
        DataError: the source has no labels.
        UserError: the source, its training split or the requested test split does not exist.
    """
    recipe = resolved.recipe
    train = open_training_set(recipe)
    if labelled:
        require_labels(train)
    if (held := open_fold(recipe)) is not None:
        return train, held
    existing = source_splits(recipe.data.source, decoder=train.decoder)
    wanted = split_of(recipe.eval.split) or recipe.eval.split
    if resolved.origins.get("eval.split") == COMMAND_LINE:
        _require_split(wanted, existing, train)
    for split in (wanted, "test", "val"):
        if split in existing and split != recipe.data.split:
            test = open_learnable(recipe, split)
            if labelled:
                require_labels(test)
            return train, test
    return train, None


def _require_split(wanted: str, existing: Sequence[str], train: Source) -> None:
    if wanted not in existing:
        raise UserError(
            f"eval.split: {train.name} has no split '{wanted}'; it has: {', '.join(existing)}"
        )
    if wanted == train.split:
        raise UserError(f"eval.split: '{wanted}' is the split that is trained on (data.split)")


def require_labels(source: Source) -> None:
    """Refuse a source without class labels."""
    if not source.labelled:
        if source.other_labels:
            raise DataError(
                f"{source.name} has no classes in split '{source.split}'{source.other_labels}"
            )
        raise DataError(
            f"{source.name} has no labels in split '{source.split}': put samples into one folder "
            f"per class, call a list's column of classes `label`, or name a labelled source with "
            f"--data"
        )


def class_count(source: Source) -> int:
    """Number of classes: of class names, or, without names, the largest label + 1.

    Raises:
        DataError: there is only one class.
    """
    labels = source.labels()
    count = max(len(source.classes or ()), int(labels.max()) + 1)
    if len(set(labels[labels >= 0].tolist())) < 2:
        raise DataError(f"{source.name} has one class in '{source.split}': nothing to tell apart")
    return count
