"""Read and write recipes: a strict YAML 1.2 reader that records the line of each key.

pyyaml reads YAML 1.1, where ``1e-3`` is text and ``no`` is false. Here scalars follow the YAML 1.2
core schema (https://yaml.org/spec/1.2.2/#103-core-schema). Features that make a recipe hard to
read are errors: duplicate keys, anchors, aliases, merge keys, tags, keys that are not text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable
from typing import Any, NamedTuple, NoReturn

import yaml

from mimsuite.errors import UserError

Keys = tuple[str, ...]  # path to a value: ("mask", "ratio")

_DEEPEST = 30  # levels of nesting; recipes have 4
_PREFIX = "tag:yaml.org,2002:"
# (tag, pattern, possible first characters), tried in this order
_CORE_SCHEMA = (
    ("null", re.compile(r"~|null|Null|NULL|"), "~nN\0"),
    ("bool", re.compile(r"true|True|TRUE|false|False|FALSE"), "tTfF"),
    ("int", re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"), "-+0123456789"),
    (
        "float",
        re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"),
        "-+.0123456789",
    ),
    ("float", re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"), "-+."),
)


class Parsed(NamedTuple):
    """A parsed YAML text.

    Attributes:
        value: mappings as dict, sequences as list, and text, int, float, bool or None.
        lines: path of each mapping key -> its line, counted from 1.
    """

    value: Any
    lines: dict[Keys, int]


def parse(text: str, where: str = "") -> Parsed:
    """Read one YAML document.

    Args:
        text: the document; an empty text is null.
        where: the file's name; messages start with ``where:line:``.

    Raises:
        UserError: not YAML, or YAML features that recipes do not allow.
    """
    try:
        loader = _Loader(text, where)
        node = loader.get_single_node()
        return Parsed(None, {}) if node is None else Parsed(loader.value(node), loader.lines)
    except yaml.MarkedYAMLError as error:
        problem = str(error.problem)
        if problem.startswith("but "):  # the sentence starts in `context`
            problem = f"{error.context} {problem}"
        at = _at(where, error.problem_mark or error.context_mark)
        raise UserError(f"{at}not valid YAML: {problem}") from None
    except yaml.YAMLError as error:  # a character that YAML does not allow
        raise UserError(f"{_at(where)}not valid YAML: {str(error).splitlines()[0]}") from None


def dump(document: dict[str, Any]) -> str:
    """A document as YAML that :func:`parse` reads back exactly; each list is on one line."""
    return _written(document)


def inline(value: Any) -> str:
    """One value as YAML on one line."""
    return _written(value, default_flow_style=True).removesuffix("...\n").rstrip("\n")


def _written(value: Any, **options: Any) -> str:
    options |= {"sort_keys": False, "allow_unicode": True, "width": math.inf}
    text: str = yaml.dump(value, Dumper=_Dumper, **options)
    return text


class _Loader(yaml.SafeLoader):
    """Composes nodes with pyyaml's parser and converts them to values itself."""

    def __init__(self, text: str, where: str) -> None:
        super().__init__(text)
        self.where, self._depth = where, 0
        self.lines: dict[Keys, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # by pyyaml
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            self._refuse(event, "anchors and aliases are not used here; write the value out")
        if getattr(event, "tag", None) is not None:
            self._refuse(event, f"tag {event.tag!r} is not used here; write the plain value")
        self._depth += 1
        if self._depth > _DEEPEST:
            self._refuse(event, f"nested deeper than {_DEEPEST} levels")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def value(self, node: yaml.Node, way: Keys = ()) -> Any:
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, way)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*way, str(i))) for i, item in enumerate(node.value)]
        return self._scalar(node)

    def _mapping(self, node: yaml.MappingNode, way: Keys) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self.value(key_node) if isinstance(key_node, yaml.ScalarNode) else None
            if key == "<<" and key_node.style is None:
                self._refuse(key_node, "merge keys are not used here; a recipe inherits by base:")
            if not isinstance(key, str):
                shown = getattr(key_node, "value", None)
                named = f"key {shown}" if isinstance(shown, str) else "a key"
                self._refuse(key_node, f"{named} is not text; put it in quotes")
            here = (*way, key)
            if key in mapping:
                first = self.lines[here]
                self._refuse(key_node, f"{'.'.join(here)} is already set on line {first}")
            self.lines[here] = key_node.start_mark.line + 1
            mapping[key] = self.value(value_node, here)
        return mapping

    def _scalar(self, node: yaml.Node) -> Hashable:
        text, kind = str(node.value), node.tag.removeprefix(_PREFIX)
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        try:
            if kind == "int":
                return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
            if kind == "float":
                number = float(text.replace(".inf", "inf") if "n" in text.lower() else text)
                if math.isfinite(number):
                    return number
        except ValueError:  # .nan in its spellings, and integers of thousands of digits
            pass
        if kind in ("int", "float"):
            self._refuse(node, f"{text[:40]} is not a finite number")
        return text

    def _refuse(self, at: yaml.Node | yaml.Event, why: str) -> NoReturn:
        raise UserError(f"{_at(self.where, at.start_mark)}{why}")


def _at(where: str, mark: Any = None) -> str:
    """The start of a message: ``file:line: ``."""
    line = f":{mark.line + 1}" if mark else ""
    return f"{where}{line}: " if where else ""


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.2, or other tools' YAML 1.1, would read as another type."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, data: str) -> yaml.Node:
    # Folding would change white space at line ends, so unprintable text is one quoted line.
    style = None if data.isprintable() else '"'
    return dumper.represent_scalar(_PREFIX + "str", data, style=style)


def _list(dumper: yaml.SafeDumper, data: list[Any]) -> yaml.Node:
    return dumper.represent_sequence(_PREFIX + "seq", data, flow_style=True)


def _add_core_schema(kind: Any) -> None:
    for tag, pattern, first in _CORE_SCHEMA:
        whole = re.compile(f"^(?:{pattern.pattern})$")
        kind.add_implicit_resolver(_PREFIX + tag, whole, ["" if c == "\0" else c for c in first])


_Loader.yaml_implicit_resolvers = {}  # drop the YAML 1.1 resolvers
_add_core_schema(_Loader)
_add_core_schema(_Dumper)
_Dumper.add_representer(str, _text)
_Dumper.add_representer(list, _list)
