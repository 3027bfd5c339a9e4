"""The result of one check."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

State = Literal["ok", "note", "missing"]


@dataclass(frozen=True)
class Finding:
    """A line of the report.

    Attributes:
        name: what was checked.
        state: ``ok``; ``note``: training works, but with limitations; ``missing``: a requirement
            is not met.
        value: the result, as text.
        mend: what the user can do; empty if nothing is needed.
        facts: the result in machine-readable form.
    """

    name: str
    state: State
    value: str
    mend: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)
