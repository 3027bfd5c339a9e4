"""The part of a run's page that shows its data: what was read, what was not, what the model got."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mimsuite.console import shown_value
from mimsuite.report.html import Markup, picture, table, tag
from mimsuite.report.run_facts import RunFacts

_KEYS = (
    ("source", "data.source"),
    ("mixture", "data.mixture"),
    ("split", "data.split"),
    ("at most", "data.limit"),
    ("mean", "augment.mean"),
    ("standard deviation", "augment.std"),
)
_PICTURES = (
    ("first_batch.png", "First batch: after augmentation, as the model gets it"),
    ("masks.png", "Masks: what the encoder sees"),
)


def data_sheet(run: RunFacts) -> Iterator[Markup]:
    """What a run trained on, as far as it was written down."""
    rows = [(label, shown_value(run.key(key))) for label, key in _KEYS if run.key(key) is not None]
    for event in run.events_named("start")[-1:]:
        if isinstance(samples := event.get("samples"), int):
            rows.append(("samples", f"{samples:,}"))
    for event in run.events_named("unused")[-1:]:
        kinds = event.get("unused")
        rows += [
            ("not used", _unused(kind))
            for kind in (kinds if isinstance(kinds, list) else ())
            if isinstance(kind, dict)
        ]
    if rows:
        yield table(rows)
    rebuilt = any((run.path / "images").glob("reconstruction-*.png"))  # which show masks, too
    for name, caption in _PICTURES[:1] if rebuilt else _PICTURES:
        file: Path = run.path / "images" / name
        if file.is_file():
            yield tag("h3", caption.partition(":")[0])
            yield picture(file.read_bytes(), caption.partition(": ")[2].capitalize())


def _unused(kind: dict[str, Any]) -> str:
    """``3 files that are no images: a.txt, b.txt``."""
    names = kind.get("first")
    listed = ", ".join(map(str, names)) if isinstance(names, list) else ""
    return f"{kind.get('count', '?')} {kind.get('what', '')}" + (f": {listed}" if listed else "")
