"""How a run ended: its one status file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, get_args

Status = Literal["DONE", "PREEMPTED", "FAILED"]


def status_of(run_dir: str | Path) -> tuple[Status, dict[str, Any]] | None:
    """The status of a run and what its file says; ``None`` while it runs, or was killed."""
    for status in get_args(Status):
        file = Path(run_dir) / status
        if file.is_file():
            try:
                content = json.loads(file.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                content = {}
            return status, content if isinstance(content, dict) else {}
    return None


def clear_status(run_dir: Path) -> None:
    """Remove the status file: the run is going on."""
    for status in get_args(Status):
        (run_dir / status).unlink(missing_ok=True)
