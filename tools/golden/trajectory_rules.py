"""How a trajectory is compared, as the README of the trajectories states it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from golden.case import Case, CaseFault
from golden.compare import Finding, compare, failed

_EARLY = "loss_rel_steps_0_to_9"
_RELATIVE = {
    **dict.fromkeys(("lr", "lr_groups", "wd", "momentum"), "lr_rel"),
    "grad_norm": "grad_norm_rel",
}


@dataclass(frozen=True)
class Group:
    """A parameter group: published names, rate scale, weight decay."""

    names: frozenset[str]
    lr_scale: float
    weight_decay: float


@dataclass(frozen=True)
class Record:
    """What a run left.

    Attributes:
        tensors: under the case's names.
        start: the start state.
        groups: the parameter groups.
        unused: parameters that published code has in its groups and never reads.
        idle: of the state, what only rounding moves, beside what the case lists.
    """

    tensors: dict[str, Tensor]
    start: dict[str, Tensor]
    groups: list[Group]
    unused: frozenset[str] = frozenset()
    idle: frozenset[str] = frozenset()


def stored_groups(case: Case, unused: frozenset[str] = frozenset()) -> list[Group]:
    """The case's ``param_groups`` but for ``unused``; none where it has no answers."""
    return [
        Group(frozenset(group["params"]) - unused, group["lr_scale"], group["weight_decay"])
        for group in case.field("param_groups", [])
    ]


def compare_trajectory(case: Case, record: Record) -> list[Finding]:
    """A finding for the groups and one for every stored answer.

    Raises:
        CaseFault: the case has answers, but not the tolerances or groups that go with them.
    """
    answers = case.answers()
    if not answers:
        return []
    for name in ("tolerances", "param_groups", "zero_gradient_entries"):
        case.field(name)
    idle = record.idle | set(case.field("zero_gradient_entries").get("tensors", []))
    for name in idle:  # only rounding moves them
        answers.pop(f"state_final.{name}", None)
    findings = [_compare_groups(record.groups, stored_groups(case, record.unused))]
    findings += [_compare_answer(case, record, name, answer) for name, answer in answers.items()]
    return findings


def _compare_answer(case: Case, record: Record, name: str, reference: Tensor) -> Finding:
    own = record.tensors.get(name)
    if own is None:
        return failed(name, "not computed")
    if own.shape != reference.shape:
        return failed(name, f"shape {list(own.shape)} instead of {list(reference.shape)}")
    if name.startswith("eval."):
        return compare(name, own, reference, {"atol": _limit(case, "eval_maxabs")})
    if not name.startswith(("state_final.", "opt.")):
        limit = torch.full_like(own, _limit(case, _RELATIVE.get(name, "loss_rel")))
        if name.startswith("loss") and _EARLY in case.field("tolerances"):
            limit[:10] = _limit(case, _EARLY)
        return compare(name, own, reference.double(), {"atol": 0.0, "rtol": limit})
    own, reference = _moved(name, own), _moved(name, reference)
    if name.startswith("opt."):
        return compare(name, own, reference, {"norm": _limit(case, "weight_rel_update")})
    start = _moved(name, record.start[name.removeprefix("state_final.")])
    return _compare_weight(case, name, own, reference, start)


def _compare_weight(
    case: Case, name: str, own: Tensor, reference: Tensor, start: Tensor
) -> Finding:
    """Error relative to the total update and, where it is bounded, the largest absolute error."""
    own, reference, start = own.double(), reference.double(), start.double()
    update, error = float((reference - start).norm()), float((own - reference).norm())
    relative = error / update if update else (math.inf if error else 0.0)
    buffer = name.endswith(("running_mean", "running_var"))
    ratio = relative / _limit(case, "buffer_rel_update" if buffer else "weight_rel_update")
    if "weight_maxabs" in case.field("tolerances"):
        largest = float((own - reference).abs().max()) / _limit(case, "weight_maxabs")
        ratio = largest if math.isnan(largest) else max(ratio, largest)
    return Finding(name, "update", relative, ratio)


def _moved(name: str, tensor: Tensor) -> Tensor:
    """Without the key part of a qkv or kv bias: softmax ignores it, so its gradient is only
    rounding, which AdamW amplifies."""
    if name.endswith("cross_attn.kv.bias"):
        return tensor.chunk(2)[1]
    if not name.endswith("attn.qkv.bias"):
        return tensor
    query, _, value = tensor.chunk(3)
    return torch.cat([query, value])


def _compare_groups(ours: list[Group], theirs: list[Group]) -> Finding:
    """Exactly the same groups: names, rate scale, weight decay."""
    name = "param_groups"
    own = {group.names: (group.lr_scale, group.weight_decay) for group in ours}
    stored = {group.names: (group.lr_scale, group.weight_decay) for group in theirs}
    if len(own) != len(ours) or own.keys() != stored.keys():
        odd = next(iter(own.keys() ^ stored.keys()), frozenset())
        return failed(name, f"only one side has a group of {sorted(odd)[:2]} ({len(odd)} names)")
    wrong = [names for names in stored if not all(map(math.isclose, own[names], stored[names]))]
    if not wrong:
        return Finding(name, "exact", 0.0, 0.0)
    note = f"other scale or decay in the group of {sorted(wrong[0])[:2]}"
    return Finding(name, "exact", float(len(wrong)), math.inf, note)


def _limit(case: Case, name: str) -> float:
    limits = case.field("tolerances")
    if name not in limits:
        raise CaseFault(f"tolerances.{name}: missing")
    return float(limits[name])
