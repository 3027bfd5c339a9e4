"""Detection of feature collapse: features become equal for all samples, a risk of latent
prediction."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from mimsuite.config.keys.shared import LogSection

_EARLY = 0.1  # share of training over which the reference maximum is taken


@dataclass(frozen=True)
class Collapse:
    """A value that has fallen too far.

    Attributes:
        term: its column in the log.
        value: current value.
        early: maximum in the first tenth of training.
    """

    term: str
    value: float
    early: float

    def __str__(self) -> str:
        return (
            f"features may have collapsed: {self.term} is {self.value:.3g}, its early maximum was "
            f"{self.early:.3g}"
        )


class CollapseWatch:
    """Compares values with their maximum in the first tenth of training; part of the checkpoint.

    Args:
        terms: columns of the log that measure how much features differ.
        total: number of training steps.
    """

    def __init__(self, section: LogSection, terms: Collection[str], total: int) -> None:
        self.section, self.terms, self.total = section, tuple(terms), total
        self._early: dict[str, float] = {}
        self._fallen: set[str] = set()

    def add(self, step: int, columns: Mapping[str, Any]) -> list[Collapse]:
        """Check a line of the log; returns the collapses that are new since the previous line."""
        if self.section.collapse == "off":
            return []
        news = []
        for term in self.terms:
            value = columns.get(term)
            if value is None or value != value:
                continue
            if term not in self._early or step <= _EARLY * self.total:
                self._early[term] = max(value, self._early.get(term, value))
            if value >= self.section.collapse_share * self._early[term]:
                self._fallen.discard(term)
            elif term not in self._fallen:
                self._fallen.add(term)
                news.append(Collapse(term, value, self._early[term]))
        return news

    @property
    def note(self) -> str:
        """Text for the progress line; empty without collapse."""
        return f"collapse: {', '.join(sorted(self._fallen))}" if self._fallen else ""

    @property
    def must_stop(self) -> bool:
        """Whether training must stop because of a collapse."""
        return bool(self._fallen) and self.section.collapse == "stop"

    def state_dict(self) -> dict[str, Any]:
        return {"early": dict(self._early), "fallen": sorted(self._fallen)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._early, self._fallen = dict(state["early"]), set(state["fallen"])
