"""One thing that was looked at, what was found, and what to do about it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

State = Literal["ok", "note", "missing"]


@dataclass(frozen=True)
class Finding:
    """A line of the report.

    Attributes:
        name: what was looked at.
        state: ``note``: training runs, but not everything or not as well as it could; ``missing``:
            something that is needed is not there.
        value: what was found.
        mend: what to do about it; empty where there is nothing to do.
        facts: the same for machines.
    """

    name: str
    state: State
    value: str
    mend: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)
