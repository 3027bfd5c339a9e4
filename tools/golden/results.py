"""What a case's computation hands to the judge."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from golden.compare import Finding
from mimsuite.masking import TokenMask


@dataclass
class Results:
    """Everything computed for one case, under the case's own names.

    Attributes:
        tensors: by name.
        entries: of a table: entry id -> {field: value}.
        not_built: ids of table entries that the product has no method for.
        facts: numbers that a case states and the product derives: name -> (own, stated).
        on_masked: name -> ((B, M, P) prediction of the training path, its mask); compared with the
            masked rows of the stored tensor of that name.
        stored_as: name of a stored tensor -> name of ours that it really holds; see ``notes``.
        notes: remarks for the reader of the report.
        findings: comparisons that a module made by rules of its own.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    not_built: list[str] = field(default_factory=list)
    facts: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    on_masked: dict[str, tuple[Tensor | None, TokenMask]] = field(default_factory=dict)
    stored_as: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def statistics(tensor: Tensor) -> dict[str, Any]:
    """The statistics by which a tensor too large to store is compared."""
    flat = tensor.detach().flatten().double()
    return {
        "mean": float(flat.mean()),
        "std": float(flat.std()),
        "absmax": float(flat.abs().max()),
        "sum": float(flat.sum()),
        "first8": flat[:8].tolist(),
    }
