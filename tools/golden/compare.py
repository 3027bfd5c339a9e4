"""The comparison rules, as the README of the goldens states them.

``atol`` + ``rtol``: ``|x - ref| <= atol + rtol * |ref|`` for every element. ``norm``:
``|x - ref| <= norm * |ref|`` in L2 over the tensor. ``exact``: equality. The marks ``slice``,
``unordered``, ``unordered_rows``, ``angle_modulo_180`` and ``same_zeros`` say what is compared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from golden.case import CaseFault


@dataclass(frozen=True)
class Finding:
    """Result of one comparison.

    Attributes:
        name: of the tensor, or of a table's entry and field.
        measure: how ``error`` is measured: ``abs``, ``norm`` or ``exact`` (elements that differ).
        error: largest difference.
        ratio: error over what is allowed; passes up to 1.
        note: why it failed, where no number says it.
    """

    name: str
    measure: str
    error: float
    ratio: float
    note: str = ""

    @property
    def ok(self) -> bool:
        return self.ratio <= 1  # false for NaN


def failed(name: str, note: str) -> Finding:
    """A comparison that could not be made, which is a failure."""
    return Finding(name, "none", math.inf, math.inf, note)


def compare(name: str, own: Tensor | None, reference: Tensor, rule: Any) -> Finding:
    """Compare what was computed, ``None`` = nothing, with the stored answer."""
    if not isinstance(rule, dict) or not {"exact", "norm", "atol", "rtol"} & set(rule):
        raise CaseFault(f"compare.{name}: {rule!r} is not a rule")
    if name.startswith("grad.") and not reference.any():
        # A relative bound on a zero says nothing: such a gradient is zero, or there is none.
        clear = own is None or not bool(own.any())
        return Finding(name, "exact", 0.0 if clear else math.inf, 0.0 if clear else math.inf)
    if own is None:
        return failed(name, "not computed")
    own, reference = own.detach(), reference.detach()
    if own.shape != reference.shape:
        return failed(name, f"shape {list(own.shape)} instead of {list(reference.shape)}")
    if "slice" in rule:
        start, stop = rule["slice"]
        own, reference = own[start:stop], reference[start:stop]
    if rule.get("same_zeros") and bool((_zero(own) != _zero(reference)).any()):
        return failed(name, "other entries are zero")
    if rule.get("unordered"):
        own, reference = own.sort(dim=-1).values, reference.sort(dim=-1).values
    if rule.get("unordered_rows"):
        own = _rows_like(own, reference)
    return _measure(name, own, reference, rule)


def _zero(tensor: Tensor) -> Tensor:
    """Where it is zero; a subnormal number is, too, since many kernels flush them."""
    tiny = torch.finfo(tensor.dtype).tiny if tensor.is_floating_point() else 1
    return tensor.abs() < tiny


def _measure(name: str, own: Tensor, reference: Tensor, rule: dict[str, Any]) -> Finding:
    if rule.get("exact"):
        count = float((own.to(torch.float64) != reference.to(torch.float64)).sum())
        return Finding(name, "exact", count, math.inf if count else 0.0)
    own, reference = own.to(torch.float64), reference.to(torch.float64)
    difference = own - reference
    if "angle_modulo_180" in rule:
        column = rule["angle_modulo_180"]
        turn = difference[..., column]
        difference[..., column] = turn - math.pi * (turn / math.pi).round()
    if "norm" in rule:
        size = float(reference.norm())
        error = float(difference.norm()) / size if size else float(difference.norm())
        return Finding(name, "norm", error, _ratio(error, float(rule["norm"]) if size else 0.0))
    difference = difference.abs()
    if not difference.numel():
        return Finding(name, "abs", 0.0, 0.0)
    bound = rule.get("atol", 0.0) + rule.get("rtol", 0.0) * reference.abs()
    share = torch.where(difference == 0, 0.0, difference / bound)  # 0/0 is equality
    return Finding(name, "abs", float(difference.max()), float(share.max()))


def _ratio(error: float, limit: float) -> float:
    if error == 0:
        return 0.0
    return error / limit if limit else math.inf


def _rows_like(own: Tensor, reference: Tensor) -> Tensor:
    """Rows (next-to-last axis) of ``own``, each moved to the reference row nearest to it."""
    flat_own = own.reshape(-1, *own.shape[-2:]).double()
    flat_reference = reference.reshape(-1, *reference.shape[-2:]).double()
    matched = []
    for mine, theirs in zip(flat_own, flat_reference, strict=True):
        distance = torch.cdist(theirs[None], mine[None], p=math.inf)[0]
        order = []
        for row in distance:
            nearest = int(row.argmin())
            order.append(nearest)
            distance[:, nearest] = math.inf  # each row is used once
        matched.append(mine[order])
    return torch.stack(matched).reshape(own.shape).to(own.dtype)


def compare_value(name: str, own: Any, reference: Any, rule: Any) -> Finding:
    """Compare a table's value: a number, nested lists, or a mapping of names to either."""
    if not isinstance(rule, dict):
        raise CaseFault(f"compare.{name}: {rule!r} is not a rule")
    if own is None:
        return failed(name, "not computed")
    own, reference = _plain(own), _plain(reference)
    if isinstance(reference, dict):
        if not isinstance(own, dict) or own.keys() != reference.keys():
            odd = sorted(set(own or ()) ^ set(reference)) if isinstance(own, dict) else []
            return failed(name, f"other names: {', '.join(map(str, odd[:4]))}")
        parts = [compare_value(key, own[key], reference[key], rule) for key in reference]
        worst = max(parts, key=lambda part: (not part.ok, part.ratio), default=None)
        if worst is None:
            return Finding(name, "exact", 0.0, 0.0)
        return Finding(
            name, worst.measure, worst.error, worst.ratio, "" if worst.ok else worst.name
        )
    if rule.get("exact"):
        return Finding(
            name, "exact", float(own != reference), 0.0 if own == reference else math.inf
        )
    mine = torch.tensor(own, dtype=torch.float64)
    return compare(name, mine, torch.tensor(reference, dtype=torch.float64), rule)


def _plain(value: Any) -> Any:
    """Tensors and tuples as lists, so that equality means equal numbers."""
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value
