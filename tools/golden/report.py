"""What a case's check came to, as one line of JSON and an exit code."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any

from golden.compare import Finding

PASS, FAIL, FAULT, NOT_BUILT = 0, 1, 2, 3


@dataclass
class Report:
    """What a case's check came to.

    Attributes:
        verdict: ``pass``, ``fail``, ``not_built`` (all that is built passes), ``dumped`` (a case
            without answers), ``fault`` (the case cannot be run).
        skipped: tensors that were not compared, and why.
        missing: answers that the case names and does not hold.
    """

    case: str
    kind: str = ""
    table: bool = False
    verdict: str = "fault"
    findings: list[Finding] = field(default_factory=list)
    not_built: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    error: str = ""
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        codes = {"pass": PASS, "dumped": PASS, "not_built": NOT_BUILT, "fault": FAULT}
        return codes.get(self.verdict, FAIL)

    def line(self) -> str:
        """One line of JSON."""
        worst = max(self.findings, key=lambda f: (not f.ok, f.ratio), default=None)
        document: dict[str, Any] = {
            "case": self.case,
            "kind": self.kind,
            "verdict": self.verdict,
            "compared": len(self.findings),
            "max": self._maxima(),
            "worst": None if worst is None else _entry(worst),
            "failed": [_entry(finding) for finding in self.findings if not finding.ok],
            "not_built": self.not_built,
            "skipped": self.skipped,
            "missing": self.missing,
            "notes": self.notes,
            "tensors": {f.name: _number(f.error) for f in self.findings},
            "seconds": round(self.seconds, 2),
        }
        if self.error:
            document["error"] = self.error
        return json.dumps(document, allow_nan=False)

    def _maxima(self) -> dict[str, Any]:
        """Largest difference of each group: loss, pred, grad, state_final; fields of a table."""
        groups: dict[str, Finding] = {}
        for finding in self.findings:
            parts = finding.name.split(".")
            group = parts[-1] if self.table else parts[0]
            if group not in groups or not finding.error <= groups[group].error:
                groups[group] = finding
        return {name: _number(finding.error) for name, finding in groups.items()}


def _entry(finding: Finding) -> dict[str, Any]:
    entry = {
        "name": finding.name,
        "measure": finding.measure,
        "error": _number(finding.error),
        "of_allowed": _number(finding.ratio),
    }
    return entry | ({"note": finding.note} if finding.note else {})


def _number(value: float) -> float | str:
    """JSON has no infinity and no NaN."""
    return value if math.isfinite(value) else str(value)
