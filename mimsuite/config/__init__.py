"""The recipe: schema sections, YAML files, base chain, overrides, errors with places. No torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mimsuite.config.catalog import names as recipe_names
    from mimsuite.config.methods import method_file, recipe_class, register_plugin
    from mimsuite.config.resolve import Resolved, from_document, load, with_overrides

__all__ = [
    "Resolved",
    "from_document",
    "load",
    "method_file",
    "recipe_class",
    "recipe_names",
    "register_plugin",
    "with_overrides",
]


def __getattr__(name: str) -> object:
    # Late, so that the command line's --help and `recipes list` do not make the schema's classes.
    if name not in __all__:
        raise AttributeError(f"module 'mimsuite.config' has no attribute '{name}'")
    if name == "recipe_names":
        return importlib.import_module("mimsuite.config.catalog").names
    methods = ("method_file", "recipe_class", "register_plugin")
    module = "methods" if name in methods else "resolve"
    return getattr(importlib.import_module(f"mimsuite.config.{module}"), name)
