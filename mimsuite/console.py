"""Output on stderr: lines, labelled lines and warnings.

Foreign text (file names, recipe values, error messages) is printed as plain text, never as rich
markup and never with control characters.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from mimsuite.text import clean, without_credentials

if TYPE_CHECKING:
    pass

LABEL = 10  # columns reserved for labels


@cache
def stderr() -> Console:
    """The process's only console, so that warnings do not break a live progress line."""
    return Console(stderr=True, highlight=False)


def say(text: str, style: str = "") -> None:
    """Print one line."""
    # Soft wrap: outside a terminal the line is not broken, so that it can be searched for.
    stderr().print(Text(clean(text), style), soft_wrap=True)


def warn(text: str) -> None:
    """Print one line that starts with ``warning:``."""
    line = Text.assemble(("warning: ", "bold yellow"), clean(without_credentials(text)))
    stderr().print(line, soft_wrap=True)


def rows(lines: Iterable[tuple[str, str]]) -> None:
    """Print labelled lines; an empty label continues the line above."""
    for label, text in lines:
        line = Text.assemble(("  " + label.ljust(LABEL), "bold"), clean(without_credentials(text)))
        stderr().print(line, soft_wrap=True)


def shown_value(value: Any) -> str:
    """A recipe value as typed in a shell, without passwords."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return without_credentials(shlex.quote(text) if isinstance(value, str) else text)
