"""Pages of the recipe keys: each with what it accepts, its default and its comment.

Types and defaults are pydantic's, comments are those of the source: nothing is kept by hand.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from mimsuite.config.methods import method_list, recipe_class
from mimsuite.config.schema import describe, literals, sections_of

FOLDER = "keys"
OF_METHODS = ("method", "model", "target")  # sections that are shown by method
LINES = 170  # of tables on a page
SHOW = ["```", "mimsuite recipes show image/mae-tiny-fashion --resolved", "```", ""]


@dataclass
class Found:
    """A section class: the dotted paths at which recipes have it, and the methods of those."""

    section: type[BaseModel]
    paths: list[str] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)


def pages() -> dict[str, str]:
    """File name -> text, the list of all first."""
    groups: dict[str, list[Found]] = defaultdict(list)
    for one in sections():
        if one.paths[0] not in OF_METHODS:
            groups["-".join(one.paths[0].split(".")[:2])].append(one)
    found = {"index.md": index_of(groups)}
    for name, members in sorted(groups.items()):
        first, *more = parts(members)
        names = [f"{name}-{number}" for number in range(2, len(more) + 2)]
        further = [f"[further forms]({one}.md)" for one in names]
        found[f"{name}.md"] = page_of(name.replace("-", "."), first, further)
        for one, part in zip(names, more, strict=True):
            found[f"{one}.md"] = page_of(name.replace("-", "."), part)
    for method in method_list():
        found[f"of-{method}.md"] = method_page(method, set(groups))
    return {f"{FOLDER}/{name}": text for name, text in found.items()}


def sections() -> list[Found]:
    """Every section class that a recipe of some method may have, by its first path."""
    found: dict[type[BaseModel], Found] = {}
    for method in method_list():
        for path, section in _walk(recipe_class(method), ""):
            one = found.setdefault(section, Found(section))
            for value, known in ((path, one.paths), (method, one.methods)):
                if value not in known:
                    known.append(value)
    return [one for one in found.values() if one.section.model_fields]


def _walk(section: type[BaseModel], prefix: str) -> Iterator[tuple[str, type[BaseModel]]]:
    for name, info in section.model_fields.items():
        for inner in sections_of(info.annotation):
            yield prefix + name, inner
            yield from _walk(inner, f"{prefix}{name}.")


def index_of(groups: dict[str, list[Found]]) -> str:
    """The list of sections and methods."""
    lines = ["# Recipe keys", ""]
    lines += [
        "A recipe is YAML in sections. `section.key=value` on the command line changes a key;"
    ]
    lines += ["wrong keys and values are refused by name.", "", "```"]
    lines += ["mimsuite recipes show image/mae-tiny-fashion"]
    lines += ["mimsuite recipes show image/mae-tiny-fashion --resolved", "```", ""]
    lines += ["The second line prints every key, its value, and where that is from.", ""]
    lines += ["| section | what it says |", "|---|---|"]
    for name, members in sorted(groups.items()):
        shared = max(members, key=lambda one: len(one.methods))
        lines.append(f"| [`{name.replace('-', '.')}`]({name}.md) | {_summary(shared.section)} |")
    lines += ["", "`method`, `model` and `target` are of each method, by `method.name`:", ""]
    lines += [" · ".join(f"[`{name}`](of-{name}.md)" for name in method_list())]
    return "\n".join(lines) + "\n"


def parts(members: list[Found]) -> list[list[Found]]:
    """The forms of a section, most used first, in lists that fit a page each."""
    found: list[list[Found]] = []
    left = 0
    for one in sorted(members, key=lambda one: (-len(one.methods), _title(one))):
        lines = len(one.section.model_fields) + 7
        if lines > left:
            found.append([])
            left = LINES
        found[-1].append(one)
        left -= lines
    return found


def page_of(path: str, members: list[Found], further: Sequence[str] = ()) -> str:
    """The keys of one section, in the forms that it has."""
    lines = [f"# `{path}`", "", *SHOW]
    lines += [f"More on {', '.join(further)}.", ""] if further else []
    for one in members:
        said = [_summary(one.section)]
        if len(one.paths) > 1:
            said.append(f"At {', '.join(f'`{path}`' for path in one.paths)}.")
        if len(one.methods) < len(method_list()):
            said.append(f"Of {', '.join(f'[`{name}`](of-{name}.md)' for name in one.methods)}.")
        lines += [f"## {_title(one)}", "", " ".join(said), "", *_table(one.section)]
    return "\n".join(lines)


def method_page(method: str, known: set[str]) -> str:
    """The sections that are a method's own; ``known`` are pages of the others."""
    recipe = recipe_class(method)
    lines = [f"# Keys of `{method}`", "", *SHOW]
    linked = []
    for name, info in recipe.model_fields.items():
        if name not in OF_METHODS:
            linked.append(name)
            continue
        for section in sections_of(info.annotation):
            lines += [f"## `{name}`", "", _summary(section), "", *_table(section)]
            linked += [f"{name}-{key}" for key in section.model_fields]
    shown = [f"[`{name.replace('-', '.')}`]({name}.md)" for name in linked if name in known]
    return "\n".join([*lines, f"Its other sections: {', '.join(shown)}.", ""])


def _table(section: type[BaseModel]) -> list[str]:
    return ["| key | accepts | default | |", "|---|---|---|---|", *_rows(section), ""]


def _title(one: Found) -> str:
    for name in ("kind", "name"):
        info = one.section.model_fields.get(name)
        words = literals(info.annotation) if info is not None else []
        if words:
            return f"`{name}: {words[0]}`" if len(words) == 1 else f"`{name}`: {', '.join(words)}"
    return one.section.__name__.removesuffix("Section")


def _summary(section: type[BaseModel]) -> str:
    """The first paragraph of its docstring."""
    text = (section.__doc__ or "").strip().partition("\n\n")[0]
    return _cell(" ".join(text.split()), code=True)


def _rows(section: type[BaseModel]) -> Iterator[str]:
    for name, info in section.model_fields.items():
        accepts = describe(_whole(info), bounds=True)
        cells = (f"`{name}`", _cell(accepts), _default(info.default), _cell(comment(section, name)))
        yield f"| {' | '.join(cells)} |"


def _whole(info: Any) -> Any:
    """A field's type with its limits; pydantic keeps them apart."""
    return Annotated[info.annotation, *info.metadata] if info.metadata else info.annotation


def _default(value: Any) -> str:
    if value is PydanticUndefined:
        return "needed"
    if isinstance(value, BaseModel):
        return "its defaults"
    if value is None or isinstance(value, bool):
        return f"`{'null' if value is None else str(value).lower()}`"
    text = str(list(value)) if isinstance(value, tuple) else str(value)
    return f"`{text}`" if text else "empty"


def _cell(text: str, *, code: bool = False) -> str:
    """Text of a table's cell; Markdown's signs in it are taken literally, code excepted."""
    signs = "|*" if code else "|*_"
    escaped = "".join(f"\\{sign}" if sign in signs else sign for sign in text)
    return escaped.replace("<", "&lt;")


def comment(section: type[BaseModel], name: str) -> str:
    """What the source says of a key: the comment above it and the one behind it."""
    for owner in section.__mro__:
        if name in vars(owner).get("__annotations__", {}):
            file = getattr(sys.modules.get(owner.__module__), "__file__", None)
            return _comments(file).get((owner.__name__, name), "") if file else ""
    return ""


@lru_cache
def _comments(file: str) -> dict[tuple[str, str], str]:
    """By class and key."""
    source = Path(file).read_text(encoding="utf-8")
    said, alone = {}, set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            line, column = token.start
            said[line] = token.string.lstrip("# ").strip()
            if not token.line[:column].strip():
                alone.add(line)
    found = {}
    for node in ast.parse(source).body:
        if not isinstance(node, ast.ClassDef):
            continue
        for inner in node.body:
            if isinstance(inner, ast.AnnAssign) and isinstance(inner.target, ast.Name):
                first, last = inner.lineno, inner.end_lineno or inner.lineno
                while first - 1 in alone:
                    first -= 1
                text = [said[line] for line in range(first, last + 1) if line in said]
                found[node.name, inner.target.id] = " ".join(text)
    return found
