"""From a method's name to its class."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from mimsuite.config.keys.shared import Recipe
from mimsuite.config.methods import find_method, method_names
from mimsuite.errors import UserError
from mimsuite.methods.base import Method


def method_class(recipe: Recipe) -> type[Method]:
    """The class that a recipe's ``method.name`` means: in that method's file, the subclass of
    :class:`Method` whose ``Recipe`` accepts the name.

    Raises:
        UserError: no such method, or a plugin file that cannot be imported or lacks the class.
    """
    name = recipe.method.name
    file = find_method(name)
    module = (
        _import_file(file.path) if file.module is None else importlib.import_module(file.module)
    )
    for value in vars(module).values():
        if _is_method_of(module, value) and name in method_names(value.Recipe):
            return value
    raise UserError(
        f"{file.path}: defines a recipe but no method '{name}': add a subclass of "
        f"mimsuite.methods.Method with `Recipe = ` its recipe class"
    )


def build(recipe: Recipe) -> Method:
    """A freshly initialised method. Weights depend on the caller's torch seed.

    Raises:
        UserError: ``model.freeze`` names more blocks than the encoder has.
    """
    cls = method_class(recipe)
    if not isinstance(recipe, cls.Recipe):  # the same class, read without torch (config.methods)
        recipe = cls.Recipe.model_validate_json(recipe.model_dump_json(), strict=True)
    method = cls(recipe)
    blocks = getattr(recipe.model, "freeze", 0)
    if blocks and isinstance(blocks, int) and blocks is not True:
        method.freeze_first(blocks)
    return method


def _is_method_of(module: ModuleType, value: object) -> bool:
    return (
        isinstance(value, type)
        and issubclass(value, Method)
        and value.__module__ == module.__name__
        and hasattr(value, "Recipe")
    )


@lru_cache
def _import_file(path: Path) -> ModuleType:
    """A plugin file as a module; its name cannot meet that of an installed one."""
    digest = hashlib.blake2b(str(path).encode(), digest_size=4).hexdigest()
    name = f"mimsuite_plugin_{path.stem}_{digest}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pydantic look it up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UserError(f"--plugin {path}: cannot be imported: {error!r}") from error
    return module
