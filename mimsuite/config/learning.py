"""What the rows of evidence say: which recipes learn, and which methods help in their ablations.

`make evidence-pages` writes ``learning.json`` beside the recipes; nothing in it is written by hand.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from mimsuite.config import catalog

HELPS, NOT_YET, RAW_WINS, MISSING = "helps", "not yet", "raw input wins", "rows are missing"


def learning(recipe: str) -> str:
    """The verdicts of a recipe's tables, as ``helps``; empty where no table is complete."""
    verdicts: dict[str, str] = _found()["learning"].get(recipe, {})
    return ", ".join(sorted({one for one in verdicts.values() if one != MISSING}))


def status(method: str, said: str) -> str:
    """A method's status; ``experimental`` becomes ``faithful`` once all its ablations help."""
    ablations: list[str] = _found()["ablations"].get(method, [])
    if said == "experimental" and ablations and set(ablations) == {HELPS}:
        return "faithful"
    return said


@lru_cache(maxsize=1)
def _found() -> dict[str, dict[str, Any]]:
    path = catalog.folder() / "learning.json"
    if not path.exists():
        return {"learning": {}, "ablations": {}}
    found: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return found
