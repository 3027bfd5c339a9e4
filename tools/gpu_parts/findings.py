"""Findings of the report: one JSON line each, written at once, so that a later start goes on."""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parents[2] / "mimsuite"
END = "ended"  # name of the line that closes a part


@dataclass(frozen=True)
class Finding:
    """One checked or measured thing.

    Attributes:
        holds: whether what must hold does; ``None`` for a measurement, of which nothing is asked.
    """

    part: str
    name: str
    holds: bool | None
    figures: dict[str, Any] = field(default_factory=dict)


class Findings:
    """The findings of one part, appended to the file of all parts."""

    def __init__(self, path: Path, part: str = "") -> None:
        self.path, self.part = path, part

    def read(self) -> list[Finding]:
        """Everything found so far, of all parts; a line cut short by a kill is passed over."""
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        found = []
        for line in lines:
            try:
                found.append(Finding(**json.loads(line)))
            except (ValueError, TypeError):
                continue
        return found

    def add(self, name: str, holds: bool | None, **figures: Any) -> None:
        line = json.dumps(asdict(Finding(self.part, name, holds, figures)), default=str)
        print(line, flush=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"\n{line}\n")  # after a line that was cut short, too

    def missing(self, names: list[str]) -> list[str]:
        """Those of ``names`` that this part has not found yet."""
        there = {finding.name for finding in self.read() if finding.part == self.part}
        return [name for name in names if name not in there]

    def ended(self) -> bool:
        """Whether an earlier start finished this part."""
        return any(f.part == self.part and f.name == END and f.holds for f in self.read())

    @contextmanager
    def trying(self, name: str) -> Iterator[None]:
        """Context of one finding; an exception is a finding too, and the part goes on."""
        try:
            yield
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            said = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            self.add(name, False, error=said, where=place_of(frames))
            traceback.print_exc()


def place_of(frames: traceback.StackSummary) -> str:
    """``file:line`` of the innermost frame in the package, or "" if there is none."""
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(PACKAGE)]
    return f"{Path(own[-1].filename).relative_to(PACKAGE)}:{own[-1].lineno}" if own else ""
