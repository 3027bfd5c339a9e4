"""Commands and files that a page of Markdown shows, for tests that run them.

A plain fenced block, or one marked ``sh exit=N``, is run: each line that begins with ``mimsuite``.
A block marked ``sh needs=THING`` is not run, since the tests have no such thing. Blocks marked
``python file=NAME`` and ``yaml file=NAME`` are files that the commands use.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
_BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Command:
    """A line of a page, without the program's name, and the exit code that it must have."""

    words: tuple[str, ...]
    exit_code: int = 0


def blocks(page: Path) -> list[tuple[list[str], str]]:
    """The words behind the fence and the text of each block."""
    return [(info.split(), text) for info, text in _BLOCK.findall(page.read_text())]


def commands(page: Path) -> list[Command]:
    """What is run of a page, in its order."""
    found = []
    for info, text in blocks(page):
        marks = dict(word.split("=", 1) for word in info[1:])
        if info and (info[0] != "sh" or "exit" not in marks):
            continue
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(line.partition("  #")[0])
            if words[:1] == ["mimsuite"]:
                found.append(Command(tuple(words[1:]), int(marks.get("exit", 0))))
    return found


def files(page: Path) -> dict[str, str]:
    """Files that a page shows: name -> text."""
    return {
        word.removeprefix("file="): text
        for info, text in blocks(page)
        for word in info
        if word.startswith("file=")
    }
