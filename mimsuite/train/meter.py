"""Running means between two log lines, kept on the device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mimsuite.train.step import StepResult


class Meter:
    """Sums of the steps' measurements; only reading them makes training wait for the device.

    The sums are part of the checkpoint, so a resumed run logs the same lines as an uninterrupted
    one.
    """

    def __init__(self) -> None:
        self.steps = 0
        self._sums: dict[str, Tensor] = {}
        self._bad_in_a_row: Tensor | float = 0.0

    def add(self, result: StepResult) -> None:
        good = 1 - result.skipped
        values = {"loss": result.loss, **result.terms, "grad_norm": result.grad_norm}
        for name, value in values.items():
            kept = torch.where(result.skipped > 0, torch.zeros_like(value), value).double()
            self._sums[name] = self._sums.get(name, 0.0) + kept
        self._sums["_good"] = self._sums.get("_good", 0.0) + good.double()
        self._bad_in_a_row = (self._bad_in_a_row + 1) * result.skipped
        self.steps += 1

    @property
    def bad_in_a_row(self) -> int:
        """Skipped steps since the last good one; waits for the device."""
        return int(self._bad_in_a_row)

    def read(self) -> dict[str, float]:
        """Means over the good steps since the last call, and the count ``skipped``; then reset."""
        good = float(self._sums.get("_good", 0.0))
        means = {
            name: float(value) / good if good else float("nan")
            for name, value in self._sums.items()
            if name != "_good"
        }
        means["skipped"] = self.steps - good
        self.steps, self._sums = 0, {}
        return means

    def state_dict(self) -> dict[str, Any]:
        sums = {name: float(value) for name, value in self._sums.items()}
        return {"steps": self.steps, "sums": sums, "bad_in_a_row": self.bad_in_a_row}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        self._sums = {
            name: torch.tensor(value, dtype=torch.float64) for name, value in state["sums"].items()
        }
        self._bad_in_a_row = float(state["bad_in_a_row"])
