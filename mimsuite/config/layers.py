"""Layers of a recipe: a file over its base, overrides over both. Each key has its origin."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mimsuite.config import catalog
from mimsuite.config.catalog import RecipeFile
from mimsuite.config.yaml import Keys, inline, parse
from mimsuite.errors import UserError

COMMAND_LINE = "command line"
_KEY = re.compile(r"[A-Za-z_][\w-]*(\.[A-Za-z_][\w-]*)*", re.ASCII)


@dataclass(frozen=True)
class Layer:
    """A nested document, and where each of its keys was set (``()``: the document itself)."""

    document: dict[str, Any]
    origins: dict[Keys, str]

    def place(self, keys: Keys) -> str:
        """Origin of a key, or of the nearest section around it."""
        while keys and keys not in self.origins:
            keys = keys[:-1]
        return self.origins.get(keys, "")

    def over(self, under: Layer) -> Layer:
        """This layer laid over another: sections merge key by key, everything else replaces."""
        document = _merge(under.document, self.document)
        # A plain value that replaces a section also removes the origins of its keys.
        kept = {k: o for k, o in under.origins.items() if _holds(document, k)}
        return Layer(document, {**kept, **self.origins})


def leaves(document: Mapping[str, Any], way: Keys = ()) -> Iterator[tuple[Keys, Any]]:
    """Each value that is not a non-empty section, with the keys that lead to it, in order."""
    for key, value in document.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, (*way, key))
        else:
            yield (*way, key), value


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Dotted key -> its two values as text, for keys whose values differ in two documents.

    A missing key is shown as ``-``, which differs from null.
    """
    sides = [
        {".".join(keys): inline(value) for keys, value in leaves(side)} for side in (one, other)
    ]
    pairs = {key: (sides[0].get(key, "-"), sides[1].get(key, "-")) for key in sides[0] | sides[1]}
    return {key: values for key, values in pairs.items() if values[0] != values[1]}


def read_chain(file: RecipeFile) -> Layer:
    """A recipe file merged over its base, which is merged over its own base, and so on.

    Raises:
        UserError: unreadable files, bases that do not exist or go in a circle.
    """
    chain: list[tuple[RecipeFile, Layer]] = []
    at: RecipeFile | None = file
    while at is not None:
        layer = _read(at)
        chain.append((at, layer))
        at = _base(at, layer)
        if at is not None and at.path in [seen.path for seen, _ in chain]:
            way = " -> ".join([*(seen.shown for seen, _ in chain), at.shown])
            raise UserError(f"the base recipes go in a circle: {way}")
    result = chain[-1][1]
    for _, layer in reversed(chain[:-1]):
        result = layer.over(result)
    return result


def of_overrides(overrides: Sequence[str] | Mapping[str, Any], origin: str = COMMAND_LINE) -> Layer:
    """A layer from ``section.key=value`` texts, or from parsed values by dotted key.

    Raises:
        UserError: text that is not KEY=VALUE, or a value that is not YAML.
    """
    result = Layer({}, {})
    if isinstance(overrides, Mapping):
        pairs = [(split_key(key), value) for key, value in overrides.items()]
    else:
        pairs = [parse_override(text) for text in overrides]
    for keys, value in pairs:
        if keys[0] == "base":
            raise UserError(f"base cannot be overridden ({origin}); copy the recipe and change it")
        document = _nest(keys, value)
        ways = [way for way, _ in leaves(document)]
        origins = {way[:n]: origin for way in ways for n in range(1, len(way) + 1)}
        result = Layer(document, origins).over(result)
    return result


def parse_override(text: str) -> tuple[Keys, Any]:
    """``mask.ratio=0.6`` -> ``(("mask", "ratio"), 0.6)``; the value is parsed as in a recipe."""
    key, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"'{text}' is not an override: expected KEY=VALUE, as in mask.ratio=0.6")
    keys = split_key(key)
    try:
        parsed = parse(value).value
    except UserError as error:
        raise UserError(f"{text}: {error} ({COMMAND_LINE})") from None
    _refuse_dots(parsed, keys, lambda way: COMMAND_LINE)
    return keys, parsed


def split_key(key: str) -> Keys:
    """Split a dotted key that the user typed."""
    if not _KEY.fullmatch(key):
        raise UserError(f"'{key}' is not a key: expected names and dots, as in mask.ratio")
    return way_of(key)


def way_of(key: str) -> Keys:
    """Split a dotted key; below ``smoke`` the keys are dotted themselves and stay whole."""
    section, dot, rest = key.partition(".")
    return (section, rest) if dot and section == "smoke" else tuple(key.split("."))


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """A document of nested sections, from values by dotted key."""
    document: dict[str, Any] = {}
    for key, value in values.items():
        document = _merge(document, _nest(way_of(key), value))
    return document


def _nest(keys: Keys, value: Any) -> dict[str, Any]:
    nested: dict[str, Any] = value
    for key in reversed(keys):
        nested = {key: nested}
    return nested


def _read(file: RecipeFile) -> Layer:
    value, lines = parse(file.read(), file.shown)
    if value is None:
        value = {}
    if not isinstance(value, dict):
        raise UserError(f"{file.shown}: expected sections such as model: and mask:")
    origins = {keys: f"{file.shown}:{line}" for keys, line in lines.items()}
    layer = Layer(value, {(): file.shown, **origins})
    _refuse_dots(value, (), layer.place)
    return layer


def _refuse_dots(value: Any, way: Keys, place: Callable[[Keys], str]) -> None:
    """Refuse dotted keys in a file: its keys nest, and a dotted key would match none of them."""
    if not isinstance(value, dict) or way == ("smoke",):
        return
    for key, inner in value.items():
        here = (*way, key)
        if "." in key:
            nested = key.replace(".", ": {", 1).replace(".", ": {")
            raise UserError(
                f"{'.'.join(here)}: dotted keys are for the command line; here write "
                f"{nested}: ...{'}' * key.count('.')} ({place(here)})"
            )
        _refuse_dots(inner, here, place)


def _base(file: RecipeFile, layer: Layer) -> RecipeFile | None:
    """The base of a file: a catalog name, or a path relative to the file."""
    base = layer.document.pop("base", None)
    if base is None:
        return None
    place = layer.place(("base",))
    if not isinstance(base, str):
        raise UserError(f"base: expected one catalog name or one path, got {base} ({place})")
    try:
        return catalog.find(base, beside=file.path.parent)
    except UserError as error:
        raise UserError(f"base: {error} ({place})") from None


def _merge(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        below = under.get(key)
        merged[key] = (
            _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
        )
    return merged


def _holds(document: Any, keys: Keys) -> bool:
    for key in keys:
        if not isinstance(document, dict) or key not in document:
            return False
        document = document[key]
    return True
