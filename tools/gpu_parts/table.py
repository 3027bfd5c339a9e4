"""The findings as Markdown, between two markers of a page."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gpu_parts.findings import END, Finding

BEGIN, FINISH = "<!-- gpu-report -->", "<!-- /gpu-report -->"
MARKS = {True: "holds", False: "**fails**", None: ""}
COUNTED = {"recipes": "recipes", "goldens": "stored cases"}  # parts with a line a failure only


def table(findings: Iterable[Finding]) -> str:
    """One row a finding; parts of very many findings are summed up, failures are never left out."""
    newest = {(finding.part, finding.name): finding for finding in findings}.values()
    rows = ["| part | what | | figures |", "|---|---|---|---|"]
    for part in dict.fromkeys(finding.part for finding in newest):
        own = [finding for finding in newest if finding.part == part and finding.name != END]
        if part in COUNTED:
            good = sum(finding.holds is True for finding in own)
            mark = MARKS[good == len(own)]
            rows.append(f"| {part} | {good} of {len(own)} {COUNTED[part]} | {mark} | |")
            own = [finding for finding in own if finding.holds is False]
        rows += [_row(finding) for finding in own]
        rows += [
            f"| {part} | the part itself | **fails** | {_figures(finding.figures)} |"
            for finding in newest
            if finding.part == part and finding.name == END and finding.holds is False
        ]
    return "\n".join(rows)


def summary(findings: Iterable[Finding]) -> tuple[int, int, int]:
    """How many hold, fail, and are measurements."""
    newest = list({(finding.part, finding.name): finding for finding in findings}.values())
    own = [finding.holds for finding in newest if finding.name != END or finding.holds is False]
    return own.count(True), own.count(False), own.count(None)


def write(page: Path, text: str) -> None:
    """Replace what stands between the markers of ``page``.

    Raises:
        ValueError: it has no markers.
    """
    whole = page.read_text(encoding="utf-8")
    before, begin, rest = whole.partition(BEGIN)
    _, end, after = rest.partition(FINISH)
    if not begin or not end:
        raise ValueError(f"{page}: no {BEGIN} and {FINISH}")
    page.write_text(f"{before}{BEGIN}\n{text}\n{FINISH}{after}", encoding="utf-8")


def _row(finding: Finding) -> str:
    what = finding.name.replace("|", "/")
    return f"| {finding.part} | {what} | {MARKS[finding.holds]} | {_figures(finding.figures)} |"


def _figures(figures: dict[str, Any]) -> str:
    shown = {k: v for k, v in figures.items() if v not in ([], {}, None, "")}
    return ", ".join(f"{key} {_text(value)}" for key, value in shown.items())


def _text(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return (json.dumps(value) if isinstance(value, list | dict) else text).replace("|", "/")
