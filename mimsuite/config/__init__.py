"""The recipe: schema sections, YAML files, base chain, overrides, errors with places. No torch."""

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
