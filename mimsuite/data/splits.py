"""Which part of a set is meant: the words for splits, and what to say when one is missing."""

from __future__ import annotations

import re
from collections.abc import Collection

from mimsuite.errors import UserError

_WORDS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def split_of(name: str) -> str | None:
    """The split that a folder, shard or key prefix names: ``validation`` -> ``val``, else None."""
    return _WORDS.get(name.lower())


def split_in(file_name: str) -> str | None:
    """The split that a shard's file name carries: ``imagenet1k-train-0001.tar`` -> ``train``."""
    for word in re.split(r"[-_.]", file_name):
        if (split := split_of(word)) is not None:
            return split
    return None


def choose(source: str, wanted: str, existing: Collection[str]) -> str:
    """The wanted split's name as it is used here.

    Args:
        existing: the splits of a set; empty where it has none and is all ``train``.

    Raises:
        UserError: there is no such split; names those that exist.
    """
    split = split_of(wanted) or wanted
    if split in (existing or {"train"}):
        return split
    if not existing:
        raise UserError(
            f"{source} has no split '{wanted}': it is one set without splits, read as 'train'"
        )
    raise UserError(f"{source} has no split '{wanted}'; it has: {', '.join(sorted(existing))}")
