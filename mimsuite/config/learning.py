"""Verdicts of the evidence tables: which recipes learn, which methods win their ablations.

`make evidence-pages` generates ``learning.json`` beside the recipes. Do not edit it by hand.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from mimsuite.config import catalog

HELPS, NOT_YET, RAW_WINS, MISSING = "helps", "not yet", "raw input wins", "rows are missing"


def learning(*recipes: str) -> str:
    """The verdicts on recipes, such as ``helps``; empty if none of their tables is complete."""
    tables: dict[str, dict[str, str]] = _found()["learning"]
    verdicts = {one for recipe in recipes for one in tables.get(recipe, {}).values()}
    return ", ".join(sorted(verdicts - {MISSING}))


def status(method: str, said: str) -> str:
    """A method's status; ``experimental`` becomes ``faithful`` once all its ablations help."""
    ablations: list[str] = _found()["ablations"].get(method, [])
    if said == "experimental" and ablations and set(ablations) == {HELPS}:
        return "faithful"
    return said


def forget() -> None:
    """Read the file anew at the next call."""
    _found.cache_clear()


@lru_cache(maxsize=1)
def _found() -> dict[str, dict[str, Any]]:
    path = catalog.folder() / "learning.json"
    if not path.exists():
        return {"learning": {}, "ablations": {}}
    found: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return found
