"""Near misses: what the user may have meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher

_MOST = 3  # names in a suggestion
_LEAST = 0.65  # likeness of a suggestion, in difflib's measure
_AS_GOOD = 0.03  # names this much less alike than the best are suggested beside it


def near(word: str, known: Iterable[str]) -> list[str]:
    """The names that ``word`` may stand for, best first, at most three.

    Names of which ``word`` is a whole part (``warmup`` of ``warmup_epochs``, ``ratio`` of
    ``mask.ratio``) are surer than misspellings, which are looked for only where there are none.
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
    """``" Did you mean a or b?"``, ready to append; empty where nothing is near."""
    return question(near(word, known))


def question(names: list[str]) -> str:
    """``" Did you mean a or b?"`` of these names; empty for none."""
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
