"""Names of splits, and the error for a missing split."""

from __future__ import annotations

import re
from collections.abc import Collection

from mimsuite.errors import UserError

_WORDS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def split_of(name: str) -> str | None:
    """The split named by a folder, shard or key prefix (``validation`` -> ``val``), or None."""
    return _WORDS.get(name.lower())


def split_in(file_name: str) -> str | None:
    """The split in a shard's file name: ``imagenet1k-train-0001.tar`` -> ``train``."""
    for word in re.split(r"[-_.]", file_name):
        if (split := split_of(word)) is not None:
            return split
    return None


def choose(source: str, wanted: str, existing: Collection[str]) -> str:
    """The canonical name of the wanted split.

    Args:
        existing: the splits of the set; empty for a set without splits, which is all ``train``.

    Raises:
        UserError: there is no such split; the message lists the existing ones.
    """
    split = split_of(wanted) or wanted
    if split in (existing or {"train"}):
        return split
    if not existing:
        raise UserError(
            f"{source} has no split '{wanted}': it is one set without splits, read as 'train'"
        )
    raise UserError(f"{source} has no split '{wanted}'; it has: {', '.join(sorted(existing))}")
