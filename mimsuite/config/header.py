"""The torch-free part of a method file: its section and recipe classes, run without the rest."""

from __future__ import annotations

import ast
import builtins
import hashlib
import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from mimsuite.config.keys.section import Section
from mimsuite.config.keys.shared import Recipe
from mimsuite.errors import UserError

_LIGHT = {"__future__", "collections.abc", "enum", "math", "pydantic", "typing"}
_BASES = ("Section", "Recipe", "Enum")


@dataclass(frozen=True)
class Header:
    """The classes that the torch-free part of a file defines.

    Attributes:
        classes: its section and recipe classes, by name.
        recipes: the recipe classes among them.
        modalities: names of the modalities that the file registers when it is imported.
    """

    classes: dict[str, type[Section]]
    recipes: list[type[Recipe]]
    modalities: tuple[str, ...] = ()


def read_header(path: Path) -> Header:
    """Run the torch-free part of a method file; an unchanged file is run once.

    Raises:
        UserError: not valid Python, or a recipe class needs code outside the torch-free part.
    """
    try:
        return _read(path, path.stat().st_mtime_ns)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


@lru_cache(maxsize=256)
def _read(path: Path, _changed: int) -> Header:
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        raise UserError(f"{path}:{line}: not valid Python: {error}") from None
    # Pydantic resolves annotations in the module named by a class's `__module__`.
    digest = hashlib.blake2b(str(path).encode(), digest_size=4).hexdigest()
    module = ModuleType(f"mimsuite_recipe_classes_{path.stem}_{digest}")
    sys.modules[module.__name__] = module
    module.__file__ = str(path)
    body = list(_light(tree, path, vars(module)))
    try:
        exec(compile(ast.Module(body, type_ignores=[]), str(path), "exec"), vars(module))
    except Exception as error:
        raise UserError(f"{path}: its recipe classes cannot be read: {error}") from error
    classes = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, Section)
        and value.__module__ == module.__name__
    }
    for cls in classes.values():
        cls.__reduce__ = _reduce  # type: ignore[method-assign, assignment]
    recipes = [cls for cls in classes.values() if issubclass(cls, Recipe)]
    return Header(classes, recipes, tuple(_modalities(tree)))


def _modalities(tree: ast.Module) -> Iterator[str]:
    """The names in ``Modality("signals", ...)`` calls, read from the source."""
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args):
            continue
        name = node.args[0]
        if node.func.id == "Modality" and isinstance(name, ast.Constant):
            yield str(name.value)


def _light(tree: ast.Module, path: Path, namespace: dict[str, Any]) -> Iterator[ast.stmt]:
    """The statements to run; classes imported from other method files go into ``namespace``."""
    known = set(dir(builtins))
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            if _is_light(node.module):
                known |= _imported(node)
                yield node
            elif node.module.startswith("mimsuite.methods."):
                known |= _borrow(node, namespace)
        elif isinstance(node, ast.Import) and all(_is_light(alias.name) for alias in node.names):
            known |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
            yield node
        elif isinstance(node, ast.ClassDef) and _is_section(node):
            missing = sorted(_needs(node) - known - {node.name})
            if missing:
                raise UserError(
                    f"{path}:{node.lineno}: recipe classes are read without torch, so "
                    f"{node.name} cannot use {', '.join(missing)} from outside it; they may use "
                    f"{', '.join(sorted(_LIGHT - {'__future__'}))} and mimsuite.config"
                )
            known.add(node.name)
            yield node
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = {target.id for target in targets if isinstance(target, ast.Name)}
            if len(names) == len(targets) and _needs(node) <= known:
                known |= names
                yield node


def _is_light(module: str) -> bool:
    return module in _LIGHT or f"{module}.".startswith("mimsuite.config.")


def _imported(node: ast.ImportFrom) -> set[str]:
    if node.names[0].name == "*":
        return set(dir(importlib.import_module(str(node.module))))
    return {alias.asname or alias.name for alias in node.names}


def _is_section(node: ast.ClassDef) -> bool:
    return any(ast.unparse(base).partition("[")[0].endswith(_BASES) for base in node.bases)


def _borrow(node: ast.ImportFrom, namespace: dict[str, Any]) -> set[str]:
    """Take imported section and recipe classes from the header of another method file."""
    names = [alias for alias in node.names if alias.name.endswith(("Section", "Recipe"))]
    if not names:
        return set()
    methods = Path(__file__).resolve().parents[1] / "methods"
    assert node.module is not None
    header = read_header(methods / f"{node.module.removeprefix('mimsuite.methods.')}.py")
    taken = {a.asname or a.name: header.classes[a.name] for a in names if a.name in header.classes}
    namespace.update(taken)
    return set(taken)


def _needs(node: ast.stmt) -> set[str]:
    """Names that a statement reads but does not define."""
    loaded: set[str] = set()
    stored: set[str] = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name):
            (loaded if isinstance(inner.ctx, ast.Load) else stored).add(inner.id)
        elif isinstance(inner, ast.arg):
            stored.add(inner.arg)
        elif isinstance(inner, ast.FunctionDef | ast.ClassDef):
            stored.add(inner.name)
        elif isinstance(inner, ast.Import | ast.ImportFrom):
            stored |= {alias.asname or alias.name.partition(".")[0] for alias in inner.names}
        elif isinstance(inner, ast.ExceptHandler) and inner.name:
            stored.add(inner.name)
    return loaded - stored


def _reduce(self: Section) -> tuple[Any, ...]:
    """Pickling by file and document: spawned loader workers cannot import these classes."""
    path = Path(str(sys.modules[type(self).__module__].__file__))
    return _rebuild, (path, type(self).__name__, self.model_dump_json())


def _rebuild(path: Path, name: str, document: str) -> Section:
    return read_header(path).classes[name].model_validate_json(document, strict=True)
