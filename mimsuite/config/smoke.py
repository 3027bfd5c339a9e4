"""The ``smoke:`` section: smaller sizes, so that any recipe runs on a CPU in seconds.

Only sizes may shrink. Method, mask, target, loss and data path stay, so that a smoke run says
something about the recipe.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from mimsuite.config.faults import at
from mimsuite.config.layers import Layer, of_overrides
from mimsuite.config.schema import dotted_keys
from mimsuite.config.suggest import did_you_mean

ORIGIN = "smoke"

# Last names of the size keys, by section.
SIZES = {
    "model": {"image_size", "patch_size", "width", "depth", "heads", "frames", "points", "groups"}
    | {"conv_width", "conv_depth", "resolution", "depths", "widths"},
    # `weights: random` stands in for weights of a teacher or tokenizer that are not at hand
    "target": {
        *("image_size", "patch_size", "width", "depth", "heads", "layer", "projection"),
        *("weights", "codes", "resolution", "layers"),
    },
    "data": {"workers", "block", "lanes", "limit"},
    "augment": {"eval_resize", "image_size"},
    "schedule": {"epochs", "warmup_epochs"},
    "train": {"global_batch", "micro_batch"},
    "eval": {"batch"},
    "log": {"every_steps"},
    "checkpoint": {"every_steps"},
}


def is_size(key: str) -> bool:
    """Whether a dotted key is one that ``smoke:`` may shrink."""
    section, _, name = key.partition(".")
    return name.rpartition(".")[2] in SIZES.get(section, ())


def faults_of_smoke(layer: Layer, recipe: type[BaseModel]) -> list[str]:
    """What is wrong with the keys of a layer's ``smoke:`` section, one line each."""
    table = layer.document.get("smoke")
    if not isinstance(table, dict):
        return []  # validation says what is wrong with it
    known = list(dotted_keys(recipe))
    sizes = [key for key in known if is_size(key)]
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
