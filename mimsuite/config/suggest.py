"""Suggest the name that the user may have meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher

_MOST = 3  # names in a suggestion
_LEAST = 0.65  # lowest difflib ratio of a suggestion
_AS_GOOD = 0.03  # also suggest names whose ratio is within this of the best


def near(word: str, known: Iterable[str]) -> list[str]:
    """The known names closest to ``word``, best first, at most three.

    Names that contain ``word`` as a whole part (``warmup`` in ``warmup_epochs``, ``ratio`` in
    ``mask.ratio``) come first. Misspellings are considered only if there is no such name.
    """
    folded = {_fold(name): name for name in known}
    wanted = _fold(word)
    parts = [
        name
        for key, name in folded.items()
        if key.startswith(wanted + "-") or key.endswith(("/" + wanted, "." + wanted))
    ]
    if parts:
        return parts[:_MOST]
    likeness = {key: SequenceMatcher(None, key, wanted).ratio() for key in folded}
    enough = max(_LEAST, max(likeness.values(), default=0.0) - _AS_GOOD)
    close = [key for key in likeness if likeness[key] >= enough]
    return [folded[key] for key in sorted(close, key=likeness.__getitem__, reverse=True)][:_MOST]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``" Did you mean a or b?"``, ready to append; empty if no name is close."""
    return question(near(word, known))


def question(names: list[str]) -> str:
    """``" Did you mean a or b?"`` for these names; empty for none."""
    return f" Did you mean {either(names)}?" if names else ""


def either(names: Iterable[str]) -> str:
    """``a``, ``a or b``, ``a, b or c``."""
    *head, last = names
    return f"{', '.join(head)} or {last}" if head else last


def with_article(noun: str) -> str:
    """``a pretrain``, ``an attentive-probe``."""
    return f"{'an' if noun[:1] in 'aeiou' else 'a'} {noun}"


def _fold(name: str) -> str:
    return name.lower().replace("_", "-")
