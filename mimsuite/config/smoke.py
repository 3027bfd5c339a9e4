"""The ``smoke:`` section: smaller sizes, so that any recipe runs on a CPU in seconds.

Only sizes may shrink: the keys marked ``Key.SIZE``. Method, mask, target, loss and data path stay
the same, so a smoke run tests the recipe's own code path.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from mimsuite.config.faults import at
from mimsuite.config.keys.section import Key
from mimsuite.config.layers import Layer, of_overrides
from mimsuite.config.schema import dotted_keys
from mimsuite.config.suggest import did_you_mean

ORIGIN = "smoke"


def faults_of_smoke(layer: Layer, recipe: type[BaseModel]) -> list[str]:
    """Faults of the keys in a layer's ``smoke:`` section, one line each."""
    table = layer.document.get("smoke")
    if not isinstance(table, dict):
        return []  # validation reports the fault
    known = list(dotted_keys(recipe))
    sizes = list(dotted_keys(recipe, mark=Key.SIZE))
    faults = []
    for key in table:
        if key in sizes:
            continue
        fault = "not a size; smoke only shrinks sizes" if key in known else "unknown key"
        place = at(layer.place(("smoke", key)))
        faults.append(f"smoke: {key}: {fault}.{did_you_mean(key, sizes)}{place}")
    return faults


def smoke_layer(layer: Layer) -> Layer:
    """The sizes of a layer's ``smoke:`` section as a layer of their own."""
    table: dict[str, Any] = layer.document.get("smoke") or {}
    return of_overrides(table, ORIGIN)
