"""What a writer is: one run of one tracker."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol


@dataclass(frozen=True)
class RunIdentity:
    """By what a tracker knows a run, at every start of it.

    Attributes:
        folder: the run directory.
        project: ``log.project``.
        name: for people, the name of the run directory.
        id: eight letters and digits, the same whenever the run is resumed.
        config: the recipe, as nested dictionaries.
    """

    folder: Path
    project: str
    name: str
    id: str
    config: dict[str, Any]


class Writer(Protocol):
    """Constructed with a :class:`RunIdentity`; starts the run in the tracker or continues it.

    All calls come from one thread per writer. An exception of a call becomes a warning and does not
    stop training.

    Attributes:
        replaces: whether :meth:`rewind` can remove written steps. A tracker that only appends does
            not get steps that it already has, and is never rewound.
        last_step: last step in the tracker at the start, -1 = none; ``None`` = unknown.
    """

    replaces: ClassVar[bool]
    last_step: int | None

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Add the figures of a step; some may be NaN or infinite."""

    def picture(self, name: str, step: int, path: Path) -> None:
        """Add a PNG file, as the picture of this name at this step."""

    def rewind(self, step: int) -> None:
        """Remove everything after this step, from which training continues."""

    def close(self) -> None:
        """Close the tracker after the last write."""
