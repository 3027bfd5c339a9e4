"""Turn pydantic's errors into messages: all faults at once, one line each, with file and line.

``mask.ratoi: unknown key. Did you mean mask.ratio? (recipes/image/mae.yaml:14)``
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from mimsuite.config.layers import Layer
from mimsuite.config.schema import Place, describe, dotted_keys, literals, locate, sections_of
from mimsuite.config.suggest import did_you_mean, near, question
from mimsuite.config.yaml import Keys
from mimsuite.errors import UserError

_OUT_OF_BOUNDS = {"greater_than", "greater_than_equal", "less_than", "less_than_equal"}
_LONGEST = 60  # characters of a wrong value that a message repeats


def faults_of(error: ValidationError, recipe: type[BaseModel], layer: Layer) -> list[str]:
    """One line for each faulty key, in the order of the recipe's sections."""
    found: dict[Keys, tuple[Place, list[Any]]] = {}
    for detail in error.errors(include_url=False):
        place = locate(recipe, layer.document, detail["loc"])
        if place is None:
            continue
        keys = place.keys
        if detail["type"] == "extra_forbidden" and place.inside:
            keys = (*keys, str(place.inside[0]))
        found.setdefault(keys, (place, []))[1].append(detail)
    if not found:  # a union whose chosen branch had no fault
        return [str(error)]
    return [_line(keys, *fault, recipe, layer) for keys, fault in found.items()]


def unknown_key(keys: Keys, section: type[BaseModel], recipe: type[BaseModel]) -> str:
    """``mask.ratoi: unknown key. Did you mean mask.ratio?``"""
    name, known = keys[-1], list(section.model_fields)
    here = ".".join((*keys[:-1], ""))
    elsewhere = {key: key.rpartition(".")[2] for key in dotted_keys(recipe)}
    same = [key for key, last in elsewhere.items() if last == name and last not in ("kind", "name")]
    close = near(name, elsewhere.values())[:1]
    hint = (
        question([here + sibling for sibling in near(name, known)])
        or question(same[:3])
        or question([key for key, last in elsewhere.items() if last in close][:3])
    )
    if not hint:
        hint = f" Keys here: {', '.join(known)}." if known else " This section has no keys."
    return f"{'.'.join(keys)}: unknown key.{hint}"


def at(place: str) -> str:
    """The end of a message that names a place."""
    return f" ({place})" if place else ""


def refuse(faults: list[str], name: str) -> UserError:
    """All faults of a recipe as one error."""
    if len(faults) == 1:
        return UserError(faults[0])
    return UserError("\n  ".join([f"{name or 'the recipe'} has {len(faults)} faults", *faults]))


def shown(value: Any) -> str:
    """A value as the user wrote it, shortened."""
    text = f"'{value}'" if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def _line(
    keys: Keys, place: Place, details: list[Any], recipe: type[BaseModel], layer: Layer
) -> str:
    types = {detail["type"] for detail in details}
    name, value = ".".join(keys), _value(layer.document, keys)
    if "extra_forbidden" in types:
        return unknown_key(keys, place.section, recipe) + at(layer.place(keys))
    if types == {"missing"} and not place.inside:
        what = describe(place.accepts, bounds=True)
        return f"{name}: required, but not set; expected {what}{at(layer.place(keys))}"
    if types == {"value_error"}:
        message = str(details[0]["ctx"]["error"])
        lead = f"{name}: " if name else ""
        return lead + message + at(_places(message, keys, place, recipe, layer))
    if types == {"union_tag_invalid"} or types == {"union_tag_not_found"}:
        value = value if isinstance(value, Mapping) else {}
        expected = describe(place.accepts, bounds=False)
        got = f", got kind {shown(value['kind'])}" if "kind" in value else ""
        return f"{name}: expected {expected}{got}{at(layer.place((*keys, 'kind')))}"
    if not place.inside and place.accepts is Any:  # a type that `describe` does not know
        return f"{name}: {details[0]['msg']}{at(layer.place(keys))}"
    expected = describe(place.accepts, bounds=bool(types & _OUT_OF_BOUNDS))
    hint = ""
    words = literals(place.accepts)
    if isinstance(value, str) and len(words) > 1:
        guess = did_you_mean(value, words)
        hint = f".{guess}" if guess else ""
    elif expected.startswith("text") and isinstance(value, int | float):
        hint = "; quotes make it text"
    return f"{name}: expected {expected}, got {shown(value)}{hint}{at(layer.place(keys))}"


def _places(message: str, keys: Keys, place: Place, recipe: type[BaseModel], layer: Layer) -> str:
    """Where each key that the message names was set."""
    dotted = set(dotted_keys(recipe))
    own = {name for section in sections_of(place.accepts) for name in section.model_fields}
    ways = []
    for word in re.findall(r"[A-Za-z_][\w.]*\w", message):
        if "." in word and word in dotted:
            ways.append(tuple(word.split(".")))
        elif keys and word in own:
            ways.append((*keys, word))
    places = dict.fromkeys(layer.origins[way] for way in ways if way in layer.origins)
    return ", ".join(places) or layer.place(keys)


def _value(document: Any, keys: Keys) -> Any:
    for key in keys:
        if isinstance(document, list) and key.isdecimal() and int(key) < len(document):
            document = document[int(key)]
        else:
            document = document.get(key) if isinstance(document, Mapping) else None
    return document
