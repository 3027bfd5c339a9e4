"""Metrics of a dictionary as text: the same lines on the terminal and in the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def figure_lines(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(name, figure) of a result of :func:`mimsuite.dictionaries.run.train_dictionary`."""
    yield "explained variance", _percent(result.get("explained_variance"))
    yield "codes per patch (L0)", _plain(result.get("l0"))
    yield "dead codes, no training patch", _percent(result.get("dead_codes"))
    yield "unused codes, no held-out patch", _percent(result.get("unused_codes"))
    if result.get("stability") is not None:
        title = f"stability, mean cosine over {result.get('seeds')} seeds"
        yield title, _plain(result["stability"])
    dark = result.get("dark_matter")
    if isinstance(dark, Mapping):
        yield "error that is linear in the feature", _percent(dark.get("error"))
        yield "squared error norm that is linear in it", _percent(dark.get("error_norm"))
        yield "control: squared norm of the feature", _percent(dark.get("input_norm"))
    curve = result.get("curve")
    if isinstance(curve, Mapping) and curve:
        points = ", ".join(f"{count}: {_percent(share)}" for count, share in curve.items())
        yield "explained variance by codes per patch", points


def _percent(value: Any) -> str:
    return f"{100 * value:.1f} %" if isinstance(value, int | float) else "-"


def _plain(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, int | float) else "-"
