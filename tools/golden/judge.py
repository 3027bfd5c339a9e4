"""Compare what was computed with all that a case stores."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from golden.case import Case, CaseFault, matches, rule_for
from golden.compare import Finding, compare, compare_value, failed
from golden.report import Report
from golden.results import Results
from mimsuite.masking import TokenMask


def judge(case: Case, results: Results, report: Report, answers_needed: bool) -> None:
    """Compare all that is stored and fill in the report."""
    report.not_built = results.not_built
    report.findings, report.notes = list(results.findings), results.notes
    if case.field("mode") != "trajectory":
        _compare_tensors(case, results, report)
        _compare_entries(case, results, report)
    for name, (own, stated) in results.facts.items():
        if stated is not None:
            report.findings.append(compare_value(name, own, stated, {"exact": True}))
    report.missing = _missing(case, results)
    # Neither the case's own numbers nor the names of groups are tensors.
    aside = ("hparams.", "param_groups")
    answered = [finding for finding in report.findings if not finding.name.startswith(aside)]
    if not all(finding.ok for finding in report.findings):
        report.verdict = "fail"
    elif answered and report.missing and answers_needed:
        raise CaseFault(f"compare: the case holds no answer for {report.missing[0]}")
    elif report.not_built:
        report.verdict = "not_built"
    elif not answered and answers_needed:
        report.verdict, report.error = "fail", "the check compared nothing"
    else:
        report.verdict = "pass" if answered else "dumped"


def _compare_tensors(case: Case, results: Results, report: Report) -> None:
    rules = case.field("compare", {})
    unbuilt = _tensors_of_unbuilt(case, results)
    for name, reference in case.answers().items():
        rule, own = rule_for(name, rules), results.tensors.get(results.stored_as.get(name, name))
        if rule is None:
            report.skipped[name] = "no rule"
        elif name in unbuilt:
            report.skipped[name] = "not built"
        elif isinstance(rule, dict) and rule.get("requires"):
            report.skipped[name] = f"needs {rule['requires']}"
        elif isinstance(rule, dict) and rule.get("optional") and own is None:
            report.skipped[name] = "optional"
        else:
            report.findings.append(compare(name, own, reference, rule))
        if name in results.on_masked and rule is not None:
            prediction, mask = results.on_masked[name]
            report.findings.append(_on_masked(name, prediction, mask, reference, rule))


def _missing(case: Case, results: Results) -> list[str]:
    """Names in ``compare`` that nothing stored answers to.

    A prefix may be empty ("only some cases store it"), but not in a trajectory.
    """
    answers = case.answers().keys() | _tensors_of_unbuilt(case, results)
    for entry in case.document.get("table", []):
        answers |= entry.get("expected", {}).keys()
    may_be_empty = case.field("mode") != "trajectory"
    missing = []
    for name, rule in case.field("compare", {}).items():
        prefix = name.endswith("*")
        idle = isinstance(rule, dict) and bool({"optional", "requires"} & rule.keys())
        if not (idle or (prefix and may_be_empty)) and not any(
            matches(answer, name) for answer in answers
        ):
            missing.append(name)
    for entry in case.document.get("table", []):
        if entry["id"] in results.entries and not entry.get("expected"):
            missing.append(entry["id"])
    return missing


def _on_masked(
    name: str, prediction: Tensor | None, mask: TokenMask, reference: Tensor, rule: Any
) -> Finding:
    """The training path's prediction against the masked rows of the stored one."""
    if reference.ndim != 3 or reference.shape[1] != mask.tokens:
        return failed(f"{name}.masked", f"the stored {name} does not hold all tokens")
    return compare(f"{name}.masked", prediction, mask.gather(reference, "masked"), rule)


def _compare_entries(case: Case, results: Results, report: Report) -> None:
    rules = case.field("compare", {})
    for entry in case.document.get("table", []):
        fields = results.entries.get(entry["id"])
        if fields is None:
            continue
        for name, reference in entry.get("expected", {}).items():
            if name in rules and reference is not None:
                own = fields.get(name)
                report.findings.append(
                    compare_value(f"{entry['id']}.{name}", own, reference, rules[name])
                )


def _tensors_of_unbuilt(case: Case, results: Results) -> set[str]:
    return {
        name
        for entry in case.document.get("table", [])
        if entry["id"] in results.not_built
        for name in entry.get("expected", {}).get("tensors", [entry["id"]])
    }


def dumped(case: Case, results: Results) -> dict[str, Tensor]:
    """What was computed, under the case's names; a table's fields as ``<id>.<field>[.<key>]``."""
    rules = case.field("compare", {})
    tensors = {
        name: tensor
        for name, tensor in results.tensors.items()
        if not rules or rule_for(name, rules) is not None or case.field("mode") == "trajectory"
    }
    for identity, fields in results.entries.items():
        for name, value in fields.items():
            parts = value.items() if isinstance(value, dict) else [(None, value)]
            for key, part in parts:
                full = ".".join(filter(None, [identity, name, key]))
                tensors[full] = torch.as_tensor(part)
    return {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
