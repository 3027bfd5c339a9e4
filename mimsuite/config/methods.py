"""From a method's name to its file and its recipe class, without importing torch.

A method file defines a :class:`~mimsuite.config.keys.shared.Recipe` beside its module. To check a
recipe, only the torch-free part of that file is run: its torch-free imports (typing, pydantic,
this package), the classes whose bases end in ``Section`` or ``Recipe``, and the constants that
they need. The rest is not executed.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from mimsuite.config.header import Header, read_header
from mimsuite.config.keys.shared import Recipe
from mimsuite.config.schema import literals, sections_of
from mimsuite.config.suggest import did_you_mean
from mimsuite.errors import UserError
from mimsuite.paths import expand_path

_BUILT_IN = Path(__file__).resolve().parents[1] / "methods"
# built-in, see `mimsuite.data.modalities`
_MODALITIES = ("image", "video", "points", "grids", "scans", "bands")
_NOT_METHODS = {"__init__", "base", "reader", "registry", "tubelet_mae", "volume_mae"}
_GROUP = "mimsuite.methods"

_plugins: list[Path] = []  # registered in this process, in order; never stored on disk


@dataclass(frozen=True)
class MethodFile:
    """A file that defines methods.

    Attributes:
        path: the file.
        module: its importable name; ``None`` for a plugin, which is imported by path.
    """

    path: Path
    module: str | None

    @property
    def header(self) -> Header:
        """The torch-free part of the file."""
        return read_header(self.path)

    def load(self) -> ModuleType:
        """Import the whole file, torch included.

        Raises:
            UserError: a plugin that cannot be imported.
        """
        if self.module is None:
            return _import_file(self.path)
        return importlib.import_module(self.module)

    def recipes(self) -> dict[str, type[Recipe]]:
        """Recipe classes by the method names that they accept."""
        return {name: recipe for recipe in self.header.recipes for name in method_names(recipe)}


def method_names(recipe: type[Recipe]) -> list[str]:
    """The method names that a recipe class accepts: the Literal of its ``method.name``."""
    info = recipe.model_fields["method"]
    names = []
    for section in sections_of(info.annotation):
        names += literals(section.model_fields["name"].annotation)
    return names


def find_method(name: str) -> MethodFile:
    """The file that defines a method.

    Raises:
        UserError: no built-in, installed or ``--plugin`` method of that name.
    """
    # Try the file named like the method first: one recipe need not read every method file.
    files = sorted(_files(), key=lambda file: file.path.stem != name.replace("-", "_"))
    for file in files:
        if name in file.recipes():
            return file
    known = method_list()
    hint = did_you_mean(name, known) or f" Known: {', '.join(known)}."
    raise UserError(
        f"unknown method '{name}'.{hint} For one of your own, give its file with --plugin"
    )


def method_file(name: str) -> Path:
    """The path of the file that defines a method; see :func:`find_method`."""
    return find_method(name).path


def recipe_class(name: str) -> type[Recipe]:
    """A method's recipe class, read without importing torch.

    It equals the class that importing the method file defines (same keys, types, defaults and
    checks) but is not the same object; ``mimsuite.methods.build`` takes instances of either.
    """
    return find_method(name).recipes()[name]


def method_list() -> list[str]:
    """Names of all known methods, plugins included."""
    return sorted(name for file in _files() for name in file.recipes())


def modality_names() -> list[str]:
    """Names of all known modalities, plugins included."""
    return [*_MODALITIES, *(name for file in _added() for name in file.header.modalities)]


def import_modalities() -> None:
    """Import the plugins that register a modality; each is imported once."""
    for file in _added():
        if file.header.modalities:
            file.load()


def register_plugin(path: str | Path) -> list[str]:
    """Make a file's methods known for the rest of this process (``--plugin FILE``).

    Returns:
        the names of its methods.

    Raises:
        UserError: not a Python file with a recipe class, or a method name that is taken.
    """
    file = Path(expand_path(str(path))).resolve()
    if file.suffix != ".py" or not file.is_file():
        raise UserError(f"--plugin {path}: expected a Python file that defines a method")
    if file in _plugins:
        return list(MethodFile(file, None).recipes())
    header = MethodFile(file, None).header
    added = MethodFile(file, None).recipes()
    if not added and not header.modalities:
        raise UserError(
            f"--plugin {path}: no recipe class with a method name found: define a subclass of "
            f'Recipe whose method section has name: Literal["..."]'
        )
    for taken in sorted(set(header.modalities) & set(modality_names())):
        raise UserError(f"--plugin {path}: a modality called '{taken}' exists already")
    for taken in sorted(set(added) & set(method_list())):
        raise UserError(f"--plugin {path}: a method called '{taken}' exists already")
    _plugins.append(file)
    return list(added)


def _files() -> Iterator[MethodFile]:
    for path in sorted(_BUILT_IN.glob("*.py")):
        if path.stem not in _NOT_METHODS:
            yield MethodFile(path, f"mimsuite.methods.{path.stem}")
    yield from _added()


def _added() -> Iterator[MethodFile]:
    """Method files from outside the suite: installed packages, then ``--plugin`` files."""
    yield from _installed()
    for path in _plugins:
        yield MethodFile(path, None)


@lru_cache
def _import_file(path: Path) -> ModuleType:
    """Import a plugin file, under a module name that no installed module has."""
    digest = hashlib.blake2b(str(path).encode(), digest_size=4).hexdigest()
    name = f"mimsuite_plugin_{path.stem}_{digest}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pydantic look it up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UserError(f"--plugin {path}: cannot be imported: {error!r}") from error
    return module


@lru_cache(maxsize=1)
def _installed() -> tuple[MethodFile, ...]:
    """Files behind the ``mimsuite.methods`` entry points; their packages are not imported."""
    found = []
    for entry in importlib.metadata.entry_points(group=_GROUP):
        top, *rest = entry.module.split(".")
        spec = importlib.util.find_spec(top)
        if spec is None:
            continue
        folders = [Path(folder) for folder in spec.submodule_search_locations or []]
        candidates = [folder.joinpath(*rest).with_suffix(".py") for folder in folders if rest]
        candidates += [folder.joinpath(*rest, "__init__.py") for folder in folders]
        if not rest and spec.origin is not None:
            candidates = [Path(spec.origin)]
        path = next((path for path in candidates if path.is_file()), None)
        if path is not None:
            found.append(MethodFile(path, entry.module))
    return tuple(found)
