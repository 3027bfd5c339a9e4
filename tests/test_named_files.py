"""Code and recipes name only files and commands that an installed wheel has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mimsuite.cli.main import COMMANDS, load_command
from tests.pages import ROOT

_NOT_SHIPPED = re.compile(
    r"(?<![\w/.])(?:tools|docs|tests)/\w|\bMakefile\b|`make [a-z]+`(?! in a clone)"
)
_MODULE = re.compile(r"(?<![\w/.])mimsuite/[\w/]+\.py\b")
_COMMAND = re.compile(r"(?:`|# +(?:[A-Z]\w+: +)?)mimsuite ([a-z][a-z-]+)(?: ([a-z][a-z-]+))?")
_FILES = sorted([*(ROOT / "mimsuite").rglob("*.py"), *(ROOT / "recipes").rglob("*.yaml")])


def lines(pattern: re.Pattern[str]) -> list[tuple[str, re.Match[str]]]:
    """Where it is found, as ``file:line``, and what."""
    return [
        (f"{path.relative_to(ROOT)}:{number}", match)
        for path in _FILES
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        for match in pattern.finditer(line)
    ]


def test_no_file_that_only_a_clone_has_is_named() -> None:
    assert [f"{where}: {match[0]}" for where, match in lines(_NOT_SHIPPED)] == []


@pytest.mark.parametrize(
    "text", ["see docs/x.md", "`tools/x.py`", "python tools/x.py", "`make demo`", "the Makefile"]
)
def test_such_a_name_is_noticed(text: str) -> None:
    assert _NOT_SHIPPED.search(text)
    assert not _NOT_SHIPPED.search("https://x.org/docs/a.html, /data/tools/a, recipes/image/a.yaml")


def test_modules_that_are_named_exist() -> None:
    found = lines(_MODULE)
    assert len(found) > 20
    assert [where for where, match in found if not Path(ROOT, match[0]).is_file()] == []


def test_commands_that_are_named_exist() -> None:
    found = lines(_COMMAND)
    assert len(found) > 100
    wrong = []
    for where, match in found:
        below = getattr(load_command(match[1]), "commands", None) if match[1] in COMMANDS else {}
        if match[1] not in COMMANDS or (below and match[2] and match[2] not in below):
            wrong.append(f"{where}: {match[0]}")
    assert wrong == []
