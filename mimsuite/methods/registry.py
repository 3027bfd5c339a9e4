"""From a method's name to its class."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from mimsuite.config.sections import Recipe
from mimsuite.methods.base import Method


def method_class(recipe: Recipe) -> type[Method]:
    """The class for a validated recipe: defined beside the recipe class it was validated by."""
    module = _import(Path(recipe.defined_in))
    name = recipe.method.name
    for value in vars(module).values():
        if isinstance(value, type) and issubclass(value, Method) and value is not Method:
            return value
    raise LookupError(f"{module.__name__} defines no Method for '{name}'")


def build(recipe: Recipe) -> Method:
    """A freshly initialised method. Weights depend on the caller's torch seed."""
    return method_class(recipe)(recipe)


def _import(path: Path) -> ModuleType:
    return importlib.import_module(f"mimsuite.methods.{path.stem}")
