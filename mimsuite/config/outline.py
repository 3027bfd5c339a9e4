"""Fields and constants of section and recipe classes, read from source without making them.

Pydantic needs a good part of a second to make the classes of all methods. A list of recipes shows
only plain constants, and the text of the class statement is enough to read those.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

_STATEMENT = re.compile(r"^(?=[^\s#)\]}])", re.MULTILINE)  # start of a top-level statement
_CLASS = re.compile(r"class (?P<name>\w+)\([^)]*(Section|Recipe)\b")


@dataclass(frozen=True)
class Outline:
    """The fields of a class statement.

    Attributes:
        fields: annotated name -> its annotation as written.
        values: name -> constant assigned to it. For a call with constant arguments, such as
            ``MethodCard("arXiv:2111.06377", "verified")``, the tuple of arguments.
    """

    fields: dict[str, str]
    values: dict[str, Any]


@lru_cache(maxsize=64)
def outlines(path: Path) -> dict[str, Outline]:
    """The section and recipe classes of a file, by name.

    Raises:
        SyntaxError: a class statement that is not Python.
    """
    text = path.read_text(encoding="utf-8")
    found = {}
    for statement in _STATEMENT.split(text):
        match = _CLASS.match(statement)
        if match:
            (node,) = ast.parse(statement).body
            found[match["name"]] = _outline(node)
    return found


def _outline(node: Any) -> Outline:
    fields, values = {}, {}
    for inner in node.body:
        if isinstance(inner, ast.AnnAssign) and isinstance(inner.target, ast.Name):
            fields[inner.target.id] = ast.unparse(inner.annotation)
            value = inner.value
            try:
                if isinstance(value, ast.Call) and not value.keywords:
                    values[inner.target.id] = tuple(map(ast.literal_eval, value.args))
                elif value is not None:
                    values[inner.target.id] = ast.literal_eval(value)
            except ValueError:  # not a constant
                continue
    return Outline(fields, values)
