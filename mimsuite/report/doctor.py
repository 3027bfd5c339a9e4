"""What the doctor found, for people: a line a finding, and below it what to do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from mimsuite.console import stderr
from mimsuite.text import clean, without_credentials

if TYPE_CHECKING:
    from mimsuite.doctor import Finding

_STYLE = {"ok": "green", "note": "yellow", "missing": "bold red"}


def findings_table(findings: Iterable[Finding]) -> None:
    """Print state, name, what was found and how to mend it."""
    found = list(findings)
    console = stderr()
    if not console.is_terminal:  # a line each, nothing folded: it may be searched
        width = max(len(one.name) for one in found)
        for one in found:
            console.print(Text(f"{one.state:<8}{one.name:<{width}}  {_text(one)}"), soft_wrap=True)
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for one in found:
        text = Text(_clean(one.value))
        if one.mend:
            text.append(f"\n{_clean(one.mend)}", "bold")
        table.add_row(Text(one.state, _STYLE[one.state]), one.name, text)
    console.print(table)


def _text(one: Finding) -> str:
    mend = f"  ->  {_clean(one.mend)}" if one.mend else ""
    return f"{_clean(one.value)}{mend}"


def _clean(text: str) -> str:
    return clean(without_credentials(text))
