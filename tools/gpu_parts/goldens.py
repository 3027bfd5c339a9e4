"""The stored results of published code, computed on the device in float32."""

from __future__ import annotations

from pathlib import Path

import torch
from golden.run import check

from gpu_parts.stage import Stage
from mimsuite.train.precision import Precision

NAME = "goldens"
FOLDER = Path(__file__).resolve().parents[2] / "tests" / "goldens"
TINY = ("mae-a", "pretrain_A", "mae_a", "ijepa-a")  # of a dry run: `make test` runs all on a CPU


def run(stage: Stage) -> None:
    cases = {p.relative_to(FOLDER).with_suffix("").as_posix(): p for p in _cases()}
    names = [name for name in cases if not stage.dry or cases[name].stem in TINY]
    if not names:
        raise FileNotFoundError(f"no cases in {FOLDER}")
    Precision("fp32", stage.device)  # exact float32 products
    torch.set_default_device(stage.device)
    for name in stage.findings.missing(names):
        report = check(cases[name])
        worst = max(report.findings, key=lambda f: (f.ratio == f.ratio, f.ratio), default=None)
        figures = {} if worst is None else {"worst": worst.name, "of_allowed": worst.ratio}
        said = {"error": str(report.error)[:300]} if report.error else {}
        holds = report.verdict in ("pass", "not_built")
        stage.findings.add(name, holds, **figures, **said)


def _cases() -> list[Path]:
    """Cases with their tensors, or that need none."""
    found = sorted(FOLDER.rglob("*.json"))
    return [
        p for p in found if p.with_suffix(".safetensors").exists() or '"table"' in p.read_text()
    ]
