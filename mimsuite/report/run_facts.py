"""Reading of a run directory, complete or not, however the run ended."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from mimsuite.report.files import read_lines
from mimsuite.report.status import Status, status_of

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a recipe in a tenth of the time


@dataclass(frozen=True)
class RunFacts:
    """The text files of a run directory; empty where they are missing or unreadable.

    Attributes:
        config: the recipe, by section.
        changed: what the command line changed, as dotted keys.
        environment: ``env.json``.
        rows: of ``metrics.jsonl``.
        events: of ``events.jsonl``.
        status: how the run ended, and what its status file says.
    """

    path: Path
    config: dict[str, Any]
    changed: dict[str, Any]
    environment: dict[str, Any]
    rows: list[dict[str, Any]]
    events: list[dict[str, Any]]
    status: tuple[Status, dict[str, Any]] | None

    @classmethod
    def read(cls, path: Path) -> RunFacts:
        return cls(
            path=path,
            config=read_yaml(path / "config.yaml"),
            changed=dict(leaves_of(read_yaml(path / "config.diff.yaml"))),
            environment=read_json(path / "env.json"),
            rows=list(read_lines(path / "metrics.jsonl")),
            events=list(read_lines(path / "events.jsonl")),
            status=status_of(path),
        )

    def key(self, dotted: str, default: Any = None) -> Any:
        """A value of the recipe by its dotted key."""
        return lookup(self.config, dotted, default)

    def column(self, name: str) -> list[float]:
        """The finite values of a metric, in order."""
        values = []
        for row in self.rows:
            try:
                value = float(row[name])
            except (KeyError, TypeError, ValueError):
                continue
            if math.isfinite(value):
                values.append(value)
        return values

    def events_named(self, *names: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event.get("event") in names]

    def seconds(self) -> float | None:
        """From the first start to the end, pauses included; ``None`` while it runs."""
        times = [e.get("time") for e in self.environment.get("earlier") or [self.environment]]
        ended = self.status[1].get("time") if self.status else None
        try:
            return (
                datetime.fromisoformat(str(ended)) - datetime.fromisoformat(str(times[0]))
            ).total_seconds()
        except (ValueError, TypeError, IndexError):
            return None


def lookup(document: dict[str, Any], dotted: str, default: Any = None) -> Any:
    """A value of a nested document by its dotted key."""
    value: Any = document
    for part in dotted.split("."):
        if not isinstance(value, dict) or part not in value:
            return default
        value = value[part]
    return value


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where it is missing, unreadable or no object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def read_yaml(path: Path) -> dict[str, Any]:
    """The sections of a YAML file; empty where it is missing, unreadable or has none."""
    try:
        value = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return value if isinstance(value, dict) else {}


def leaves_of(document: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """The values of a nested document with their dotted keys."""
    leaves: list[tuple[str, Any]] = []
    for key, value in document.items():
        if isinstance(value, dict) and value:
            leaves += leaves_of(value, f"{prefix}{key}.")
        else:
            leaves.append((f"{prefix}{key}", value))
    return leaves
