"""Section and recipe classes as their source says them, read without making the classes.

Making them takes pydantic a good part of a second for all methods. What a list of recipes shows of
them are plain constants, and for those the text of the class statement is enough.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

_STATEMENT = re.compile(r"^(?=[^\s#)\]}])", re.MULTILINE)  # where one starts at the left margin
_CLASS = re.compile(r"class (?P<name>\w+)\([^)]*(Section|Recipe)\b")


@dataclass(frozen=True)
class Outline:
    """What a class statement says.

    Attributes:
        fields: annotation of each annotated name, as written.
        values: what is assigned, of those with a constant or a call of constants, such as
            ``MethodCard("arXiv:2111.06377", "verified")``, of which the arguments are kept.
    """

    fields: dict[str, str]
    values: dict[str, Any]


@lru_cache(maxsize=64)
def outlines(path: Path) -> dict[str, Outline]:
    """The classes of a file whose bases are sections or recipes, by name.

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
            except ValueError:  # no constant
                continue
    return Outline(fields, values)
