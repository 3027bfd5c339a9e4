"""Find a recipe by catalog name (the recipes that ship with the suite) or by path."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from mimsuite.config.suggest import did_you_mean
from mimsuite.errors import UserError
from mimsuite.paths import expand_path

_SUFFIXES = (".yaml", ".yml")
_PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class RecipeFile:
    """A recipe file.

    Attributes:
        name: catalog name; for a file outside the catalog, the path as messages show it.
        path: path of the file.
        shown: the path for messages: relative to the working directory or to the catalog.
    """

    name: str
    path: Path
    shown: str

    def read(self) -> str:
        """The text of the file.

        Raises:
            UserError: a file that cannot be read or is not UTF-8 text.
        """
        try:
            return self.path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            raise UserError(f"{self.shown}: not a text file in UTF-8") from None
        except OSError as error:
            raise UserError(f"{self.shown}: cannot be read: {error.strerror}") from None


def folder() -> Path:
    """Folder of the catalog: in the installed package, or at the top of a source checkout."""
    installed = _PACKAGE / "_recipes"
    return installed if installed.is_dir() else _PACKAGE.parent / "recipes"


@lru_cache(maxsize=1)
def names() -> tuple[str, ...]:
    """Catalog names such as ``image/mae-vitb16-in1k``, sorted."""
    top = folder()
    found = (path for path in top.rglob("*.yaml") if path.is_file())
    return tuple(sorted(path.relative_to(top).with_suffix("").as_posix() for path in found))


def find(recipe: str | Path, beside: Path | None = None) -> RecipeFile:
    """The file of a recipe.

    Args:
        recipe: a catalog name, or a path to a YAML file.
        beside: folder that a relative path is relative to; ``None``: the working directory.

    Raises:
        UserError: empty, or neither a catalog name nor a file.
    """
    text = str(recipe)
    if not text:
        raise UserError("the recipe's name is empty. `mimsuite recipes list` shows all.")
    if text in names():
        return _of_catalog(text)
    path = (beside or Path()) / expand_path(text)
    if path.is_file():
        return _of_path(path)
    if path.suffix in _SUFFIXES:
        raise UserError(f"{path}: no such recipe file")
    if path.is_dir():
        raise UserError(f"{text} is a folder; a recipe is a YAML file or a catalog name")
    hint = did_you_mean(text, names()) or " `mimsuite recipes list` shows all."
    raise UserError(f"no recipe '{text}'.{hint}")


def _of_catalog(name: str) -> RecipeFile:
    return RecipeFile(name, folder() / f"{name}.yaml", f"recipes/{name}.yaml")


def _of_path(path: Path) -> RecipeFile:
    whole = path.resolve()
    if whole.is_relative_to(folder()) and whole.suffix == ".yaml":
        return _of_catalog(whole.relative_to(folder()).with_suffix("").as_posix())
    here = Path.cwd()
    shown = whole.relative_to(here) if whole.is_relative_to(here) else whole
    return RecipeFile(shown.as_posix(), whole, shown.as_posix())
