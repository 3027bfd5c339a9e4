"""``--sweep KEY=A,B,C``: all combinations of values, each run by one element of a job array."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from mimsuite.config.layers import parse_override
from mimsuite.errors import UserError

_MOST = 1000  # elements; SLURM's own limit (MaxArraySize) is 1001 unless raised


def combinations(sweeps: Sequence[str]) -> list[tuple[str, ...]]:
    """All combinations of the values of each key, the last key changing fastest.

    Args:
        sweeps: ``KEY=A,B,C`` each; commas inside brackets or quotes belong to a value.

    Returns:
        overrides ``KEY=VALUE``, one for each key.

    Raises:
        UserError: a key has fewer than two values, or two combinations have the same name.
    """
    found = list(itertools.product(*map(_values, sweeps)))
    if len(found) > _MOST:
        raise UserError(f"--sweep has {len(found)} combinations; a job array takes {_MOST}")
    names: dict[str, tuple[str, ...]] = {}
    for keys in found:
        name = name_of(keys)
        if name in names:
            both = f"{' '.join(names[name])} and {' '.join(keys)}"
            raise UserError(f"--sweep: {both} would share the run directory {name}")
        names[name] = keys
    return found


def name_of(keys: Sequence[str]) -> str:
    """The folder name of a combination: ``optim.lr=1e-3,train.seed=0``."""
    return re.sub(r"[^\w.,=+@-]+", "_", ",".join(keys)).strip("_")


def _values(text: str) -> list[str]:
    key, equals, rest = text.partition("=")
    values = _split(rest)
    if not equals or len(values) < 2 or not all(values):
        raise UserError(
            f"--sweep {text}: expected a key and values, as in --sweep optim.lr=1e-3,2e-3"
        )
    overrides = [f"{key}={value}" for value in values]
    for override in overrides:
        parse_override(override)
    return overrides


def _split(text: str) -> list[str]:
    """Split at commas outside brackets and quotes."""
    parts, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in "[{(":
            depth += 1
        elif character in "]})":
            depth -= 1
        if character == "," and depth == 0 and not quote:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]
