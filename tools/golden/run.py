"""Run cases, judge them, print one JSON line each."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from golden import classify, fullsize, functions, mae, tables, trajectory
from golden.case import Case, CaseFault, matches, rule_for
from golden.compare import Finding, compare, compare_value, failed
from golden.results import Results
from mimsuite.masking import TokenMask

KINDS: dict[str, Callable[[Case], Results]] = {
    "image/mae": mae.pretrain,
    "image/mae-vit": classify.classify,
    "image/mae-fullsize": fullsize.pretrain,
    "image/mae-vit-fullsize": fullsize.finetune,
    "image/mae-traj": trajectory.pretrain,
    "image/mae-ft-traj": trajectory.finetune,
    "image/linprobe": functions.linear_probe,
    "image/lars": functions.lars,
    "image/sincos-pos-embed": tables.positions,
    "image/lr-schedules": tables.rates,
    "image/layer-decay-groups": tables.parameter_groups,
    "image/len-keep": tables.kept_tokens,
    "image/state-dict-keys": tables.keys,
}
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


def check(path: Path, dump: Path | None = None) -> Report:
    """Run one case; ``dump`` receives everything computed, and makes answers optional."""
    begun, report = time.monotonic(), Report(path.stem)
    try:
        case = Case.read(path)
        report.kind = case.kind
        report.table = "table" in case.document
        if case.kind not in KINDS:
            raise CaseFault(f"kind: '{case.kind}' is unknown")
        for name in ("mode", "hparams", "inputs", *(() if dump else ("compare",))):
            case.field(name)
        results = KINDS[case.kind](case)
        if unread := case.hparams.unread():
            raise CaseFault(f"hparams.{unread[0]}: not understood")
        judge(case, results, report, answers_needed=dump is None)
        if dump is not None:
            save_file(dumped(case, results), dump)
    except CaseFault as fault:
        report.verdict, report.error = "fault", str(fault)
    except Exception as error:  # a product that cannot run the case has failed it
        report.verdict = "fail"
        report.error = f"{type(error).__name__}: {' '.join(str(error).split())}"
    report.seconds = time.monotonic() - begun
    return report


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
    return missing


def _on_masked(
    name: str, prediction: Tensor, mask: TokenMask, reference: Tensor, rule: Any
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
    import torch

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


def main(arguments: Sequence[str] | None = None) -> int:
    """Check cases. Exit code: 2 if one cannot be run, else 1 if one fails, else 3 if part of one
    is not built, else 0."""
    parser = argparse.ArgumentParser(
        prog="check_golden.py",
        description="Check the suite against reference tensors; one JSON line a case.",
        epilog="exit codes: 0 pass, 1 fail, 2 a case cannot be run, 3 something is not built",
    )
    parser.add_argument("cases", nargs="+", type=Path, metavar="CASE.json")
    parser.add_argument(
        "--dump",
        type=Path,
        metavar="OUT.safetensors",
        help="write what was computed, under the case's tensor names; one case only. The case "
        "needs no answers then",
    )
    options = parser.parse_args(arguments)
    if options.dump is not None and len(options.cases) != 1:
        parser.error("--dump takes exactly one case")
    codes = []
    for path in options.cases:
        report = check(path, options.dump)
        print(report.line(), flush=True)
        if report.error:
            print(f"{path}: {report.error}", file=sys.stderr)
        codes.append(report.exit_code)
    return next((code for code in (FAULT, FAIL, NOT_BUILT) if code in codes), PASS)
