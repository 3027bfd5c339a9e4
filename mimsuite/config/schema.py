"""The keys of a recipe class, and the values that each key accepts, described in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from mimsuite.config.keys.section import Key, marked
from mimsuite.config.suggest import either
from mimsuite.config.yaml import Keys

_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
_PLURALS = {
    "a whole number": "whole numbers",
    "a number": "numbers",
    "text": "texts",
    "a section": "sections",
}


@dataclass(frozen=True)
class Place:
    """Where a fault is, in terms of the recipe's keys.

    Attributes:
        keys: the way to the key.
        accepts: the key's type, for :func:`describe`; ``Any`` if unknown.
        section: the class of the section that holds the key, or of the faulty section itself.
        inside: the rest of the location below the key: list indices and union branch names.
    """

    keys: Keys
    accepts: Any
    section: type[BaseModel]
    inside: tuple[str | int, ...] = ()


def locate(recipe: type[BaseModel], document: Any, location: tuple[str | int, ...]) -> Place | None:
    """The key that pydantic's error location means.

    Returns:
        ``None`` for the branch of a union that the document's ``kind`` rules out.
    """
    place = Place((), recipe, recipe)
    rest = list(location)
    while rest:
        options = sections_of(place.accepts)
        if len(options) > 1 and rest[0] in _branches(options):
            chosen = _chosen(options, document, rest[0])
            if chosen is None:
                return replace(place, inside=tuple(rest))
            if rest[0] not in _branches([chosen]):
                return None
            place, options, rest = replace(place, accepts=chosen), [chosen], rest[1:]
            if not rest:
                break
        item = _section_in_list(place.accepts)
        if item is not None and isinstance(rest[0], int):
            document = document[rest[0]] if isinstance(document, list | tuple) else None
            place = Place((*place.keys, str(rest[0])), item, item)
            rest = rest[1:]
            continue
        name = str(rest[0])
        if len(options) != 1 or name not in options[0].model_fields:
            holder = options[0] if len(options) == 1 else place.section
            return replace(place, section=holder, inside=tuple(rest))
        document = document.get(name) if isinstance(document, dict) else None
        place = Place((*place.keys, name), _annotation(options[0], name), options[0])
        rest = rest[1:]
    return place


def dotted_keys(
    recipe: type[BaseModel], prefix: str = "", mark: Key | None = None
) -> Iterator[str]:
    """Every key that documents of this class may have, sections included, as dotted keys.

    Args:
        mark: yield only keys with this mark; ``None``: all.
    """
    own = recipe.model_fields if mark is None else marked(recipe, mark)
    for name in recipe.model_fields:
        if name in own:
            yield prefix + name
        for section in sections_of(_annotation(recipe, name)):
            yield from dotted_keys(section, f"{prefix}{name}.", mark)


def describe(annotation: Any, *, bounds: bool) -> str:
    """What a type accepts: ``a whole number above 0 or a list of 2 whole numbers above 0``."""
    annotation, limits = _bare(annotation)
    kind, arguments = get_origin(annotation), get_args(annotation)
    if annotation is None or annotation is NoneType:
        return "null"
    if kind in (Union, UnionType):
        sections = sections_of(annotation)
        if len(sections) > 1:
            kinds = [str(name) for section in sections for name in _kinds(section)]
            return f"a section with kind {either(kinds)}" if kinds else "a section"
        return either(dict.fromkeys(describe(a, bounds=bounds) for a in arguments))
    if kind is Literal:
        return ("one of " if len(arguments) > 1 else "") + ", ".join(map(str, arguments))
    if kind in (tuple, list):
        return _describe_list(arguments, bounds)
    if kind is dict or (isinstance(annotation, type) and issubclass(annotation, BaseModel | dict)):
        return "a section"
    return _NAMES.get(annotation, "another value") + (_limits(limits) if bounds else "")


def literals(annotation: Any) -> list[str]:
    """The words that a key accepts, where it is a choice of words."""
    annotation, _ = _bare(annotation)
    if get_origin(annotation) is Literal:
        return [str(value) for value in get_args(annotation)]
    if get_origin(annotation) in (Union, UnionType):
        return [word for option in get_args(annotation) for word in literals(option)]
    return []


def words_of(section: BaseModel, key: str) -> list[str]:
    """The words that a dotted key of a recipe accepts; empty where numbers or texts stand."""
    first, _, rest = key.partition(".")
    inner = getattr(section, first, None)
    if rest:
        return words_of(inner, rest) if isinstance(inner, BaseModel) else []
    if first not in type(section).model_fields:
        return []
    annotation, _ = _bare(_annotation(type(section), first))
    union = get_origin(annotation) in (Union, UnionType)
    options = get_args(annotation) if union else (annotation,)
    found = literals(annotation) + (["true", "false"] if bool in options else [])
    return [*found, "null"] if found and NoneType in options else found


def _describe_list(items: tuple[Any, ...], bounds: bool) -> str:
    fixed = [item for item in items if item is not Ellipsis]
    count = f"{len(fixed)} " if Ellipsis not in items and len(fixed) > 1 else ""
    names = list(dict.fromkeys(describe(item, bounds=bounds) for item in fixed))
    if len(names) != 1:
        return f"a list of {count}values"
    for singular, plural in _PLURALS.items():
        if names[0].startswith(singular):
            return f"a list of {count}{plural}{names[0].removeprefix(singular)}"
    return f"a list of {count}values, each {names[0]}"


def _limits(metadata: list[Any]) -> str:
    """Bounds in words: `` above 0``, `` from 0 to 1``, ``, 0 or more``."""
    found = {
        name: f"{getattr(limit, name):g}"
        for limit in metadata
        for name in ("gt", "ge", "lt", "le")
        if getattr(limit, name, None) is not None
    }
    low, high = found.get("gt", found.get("ge")), found.get("lt", found.get("le"))
    if low is None and high is None:
        return ""
    if high is None:
        return f" above {low}" if "gt" in found else f", {low} or more"
    if low is None:
        return f" below {high}" if "lt" in found else f", {high} or less"
    start = f"above {low} and" if "gt" in found else f"from {low}"
    middle = ("below" if "lt" in found else "up to") if "gt" in found else "to"
    return f" {start} {middle} {'below ' if 'ge' in found and 'lt' in found else ''}{high}"


def _annotation(section: type[BaseModel], name: str) -> Any:
    """A field's type with its limits; pydantic keeps them apart."""
    info = section.model_fields[name]
    return Annotated[info.annotation, *info.metadata] if info.metadata else info.annotation


def _bare(annotation: Any) -> tuple[Any, list[Any]]:
    """A type without its ``Annotated``, and the limits from it."""
    limits: list[Any] = []
    while get_origin(annotation) is Annotated:
        annotation, *metadata = get_args(annotation)
        for item in metadata:
            limits.extend(item.metadata if isinstance(item, FieldInfo) else [item])
    return annotation, limits


def sections_of(annotation: Any) -> list[type[BaseModel]]:
    """The section classes that a type accepts: none for a plain value, several for a union."""
    annotation, _ = _bare(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, UnionType):
        return [section for option in get_args(annotation) for section in sections_of(option)]
    return []


def _section_in_list(annotation: Any) -> type[BaseModel] | None:
    """The section class that a list (or null) holds."""
    annotation, _ = _bare(annotation)
    if get_origin(annotation) in (Union, UnionType):
        found = map(_section_in_list, get_args(annotation))
        return next((section for section in found if section is not None), None)
    if get_origin(annotation) in (tuple, list):
        return next(iter(sections_of(get_args(annotation)[0])), None)
    return None


def _kinds(section: type[BaseModel]) -> list[Any]:
    """The values of ``kind`` (or of a method's ``name``) that select this section."""
    for name in ("kind", "name"):
        if name in section.model_fields:
            return literals(section.model_fields[name].annotation)
    return []


def _branches(sections: list[type[BaseModel]]) -> set[Any]:
    return {name for section in sections for name in [section.__name__, *_kinds(section)]}


def _chosen(
    sections: list[type[BaseModel]], document: Any, branch: str | int
) -> type[BaseModel] | None:
    """The section that the document's ``kind`` names; without one, the section of the error."""
    given = document if isinstance(document, dict) else {}
    names = {given.get("kind"), given.get("name")} - {None} or {branch}
    matching = [section for section in sections if names & set(_kinds(section))]
    return matching[0] if matching else None
