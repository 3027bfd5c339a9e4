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
    """Made from a :class:`RunIdentity`; starts the run in the tracker, or goes on with it.

    All calls come from one thread of its own. Whatever a call raises is warned of, and training
    goes on.

    Attributes:
        replaces: whether :meth:`rewind` can take back what was written. A tracker that only
            appends is spared steps that it has, and is never asked to rewind.
        last_step: that the tracker had at the start, -1 = none; ``None`` = it cannot tell.
    """

    replaces: ClassVar[bool]
    last_step: int | None

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Add the figures of a step; some may be NaN or infinite."""

    def picture(self, name: str, step: int, path: Path) -> None:
        """Add a PNG file, as the picture of this name at this step."""

    def rewind(self, step: int) -> None:
        """Training goes on from this step: what was written of later ones comes again."""

    def close(self) -> None:
        """All is written."""
