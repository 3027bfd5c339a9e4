"""What mkdocs builds beside the pages of docs/: commands, recipe keys, evidence, changelog.

A hook of mkdocs (`mkdocs.yml`). Pages that are made from the code are never on disk, so that they
cannot grow old.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```([^\n`]*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)

sys.path[:0] = [str(TOP), str(TOP / "tools")]

import docs_commands  # noqa: E402
import docs_keys  # noqa: E402


def made() -> dict[str, str]:
    """Pages that are made from the code: place below docs/ -> Markdown."""
    changes = (TOP / "CHANGELOG.md").read_text(encoding="utf-8")
    title, _, rest = changes.replace("](docs/", "](").partition("\n")
    changes = f"{title}\n\nWhich version is installed:\n\n```\nmimsuite --version\n```\n{rest}"
    return {"changelog.md": changes, **docs_commands.pages(), **docs_keys.pages()}


def on_config(config: Any) -> Any:
    """Fill the parts of the menu that are marked as folders: ``Commands: commands/``."""
    names = [*made(), *(f"evidence/{one.name}" for one in (TOP / "docs/evidence").glob("*.md"))]
    config.nav = [_filled(entry, names) for entry in config.nav]
    return config


def _filled(entry: Any, names: list[str]) -> Any:
    if isinstance(entry, str):
        return entry
    if isinstance(entry, list):
        return [_filled(one, names) for one in entry]
    (title, target), *_ = entry.items()
    if isinstance(target, str) and target.endswith("/"):
        inside = [name for name in names if name.startswith(target)]
        return {title: sorted(inside, key=lambda name: not name.endswith("/index.md"))}
    return {title: _filled(target, names)}


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made."""
    from mkdocs.structure.files import File

    for name, text in made().items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Give marks that are for the tests (`tests/pages.py`) the form that readers should see."""
    if page.is_homepage:
        page.meta["hide"] = ["navigation"]  # the tabs are enough
    return BLOCK.sub(lambda block: f"```{_fence(block[1])}\n{block[2]}```", markdown)


def _fence(info: str) -> str:
    """``sh exit=2`` -> ``sh title="exit code 2"``; a block of no language is of the shell."""
    language, *marks = info.split() or ["sh"]
    said = dict(mark.split("=", 1) for mark in marks)
    if said.get("exit", "0") != "0":
        return f'{language} title="exit code {said["exit"]}"'
    return f'{language} title="{said["file"]}"' if "file" in said else language
