"""Look up a method's class by name, and build it."""

from __future__ import annotations

from types import ModuleType

from mimsuite.config.keys.shared import Recipe
from mimsuite.config.methods import find_method, method_names
from mimsuite.errors import UserError
from mimsuite.methods.base import Method


def method_class(recipe: Recipe) -> type[Method]:
    """The class for a recipe's ``method.name``: in that method's file, the subclass of
    :class:`Method` whose ``Recipe`` accepts the name.

    Raises:
        UserError: no such method, or a plugin file that cannot be imported or lacks the class.
    """
    name = recipe.method.name
    file = find_method(name)
    module = file.load()
    for value in vars(module).values():
        if _is_method_of(module, value) and name in method_names(value.Recipe):
            return value
    raise UserError(
        f"{file.path}: defines a recipe but no method '{name}': add a subclass of "
        f"mimsuite.methods.Method with `Recipe = ` its recipe class"
    )


def build(recipe: Recipe) -> Method:
    """Build a freshly initialised method. Its weights depend on the caller's torch seed.

    Raises:
        UserError: ``model.freeze`` names more blocks than the encoder has.
    """
    cls = method_class(recipe)
    if not isinstance(recipe, cls.Recipe):  # an instance of the torch-free twin class
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
