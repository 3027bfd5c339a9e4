"""The row of a recipe in `recipes list`, read a hundred times faster than by validating it.

It reads the same files as :func:`mimsuite.config.load`, the recipe and its bases as YAML and the
method's file for its name and card, but validates no section. Recipes of plugin methods, bases
given by path and faulty files are loaded in full instead, which reports their errors.
"""

from __future__ import annotations

import ast
import re
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from mimsuite.config import catalog, learning
from mimsuite.config.outline import Outline, outlines

_PACKAGE = Path(__file__).resolve().parents[1]
# All scalars as text; every key shown is text.
_LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_MARGIN = re.compile(r"^(?=[^\s#])", re.MULTILINE)  # where a key starts
_KEY = re.compile(r"(\w+):\s")
_SHOWN = {"base", "recipe", "method"}
_ABOUT = ("title", "task", "modality", "paper", "published", "gpu_hours")


class Summary(NamedTuple):
    """A row of the list. ``proof`` and ``status`` are the method's, ``learning`` the recipe's."""

    name: str
    title: str
    task: str
    modality: str
    method: str
    status: str
    proof: tuple[str, ...]
    paper: str
    published: str
    gpu_hours: str
    learning: str


class _NotPlain(Exception):
    """The recipe has to be loaded in full."""


def summary(name: str) -> Summary:
    """The row of a catalog recipe.

    Raises:
        UserError: a recipe that cannot be read; not every fault of one shows here.
    """
    try:
        about, method = _written(name)
        status, proof, paper = _card(method)
        values = _defaults() | about
        values["paper"] = values["paper"] or paper
        return Summary(
            name=name,
            method=method,
            status=learning.status(method, status),
            proof=proof,
            learning=learning.learning(name),
            **{key: values[key] for key in _ABOUT},
        )
    except (_NotPlain, yaml.YAMLError, SyntaxError, OSError):
        return summary_in_full(name)


def summary_in_full(name: str) -> Summary:
    """The row of a recipe, from the validated recipe.

    Raises:
        UserError: every fault of the recipe at once, with file and line.
    """
    from mimsuite.config.resolve import load

    recipe = load(name).recipe
    about, card = recipe.recipe, recipe.card
    return Summary(
        name=name,
        title=about.title,
        task=about.task,
        modality=about.modality,
        method=recipe.method.name,
        status=learning.status(recipe.method.name, card.status),
        proof=card.proof,
        learning=learning.learning(name),
        paper=about.paper or card.paper,
        published=about.published,
        gpu_hours=about.gpu_hours,
    )


def _written(name: str) -> tuple[dict[str, str], str]:
    """The ``recipe`` section, merged over its bases, and the method's name."""
    about: dict[str, str] = {}
    method = ""
    seen: list[str] = []
    at: str | None = name
    while at is not None:
        if at not in catalog.names() or at in seen:
            raise _NotPlain
        seen.append(at)
        own, own_method, at = _head(at)
        about, method = own | about, method or own_method
    return about, method


@cache
def _head(name: str) -> tuple[dict[str, str], str, str | None]:
    """From one file: its ``recipe`` section, its method's name and its base."""
    _, *parts = _MARGIN.split(catalog.find(name).read() + "\n")
    keys = [_KEY.match(part) for part in parts]
    if None in keys:
        raise _NotPlain
    text = "".join(part for part, key in zip(parts, keys, strict=True) if key and key[1] in _SHOWN)
    document = yaml.load(text, Loader=_LOADER)
    if not isinstance(document, dict):
        raise _NotPlain
    about, method = document.get("recipe", {}), document.get("method", {})
    if not isinstance(about, dict) or not isinstance(method, dict):
        raise _NotPlain
    return about, method.get("name", ""), document.get("base")


@lru_cache(maxsize=1)
def _defaults() -> dict[str, str]:
    return outlines(_PACKAGE / "config/keys/shared.py")["RecipeInfo"].values


def _card(method: str) -> tuple[str, tuple[str, ...], str]:
    """Status, proof and paper of a built-in method."""
    try:
        values = _cards()[method]
        paper, status, *rest = values
    except (KeyError, ValueError):
        raise _NotPlain from None
    return status, (rest[0] if rest else ()), paper


@lru_cache(maxsize=1)
def _cards() -> dict[str, tuple[Any, ...]]:
    """Method name -> arguments of its card."""
    found = {}
    for path in sorted((_PACKAGE / "methods").glob("*.py")):
        classes = outlines(path)
        for recipe in classes.values():
            section = classes.get(recipe.fields.get("method", ""))
            if section is not None and "card" in recipe.values:
                found.update(dict.fromkeys(_names(section), recipe.values["card"]))
    return found


def _names(section: Outline) -> tuple[str, ...]:
    """The values in ``name: Literal["a", "b"]``."""
    inner = section.fields.get("name", "").removeprefix("Literal[").removesuffix("]")
    return tuple(ast.literal_eval(f"({inner},)")) if inner else ()
