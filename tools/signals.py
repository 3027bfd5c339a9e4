"""Do label-free signals order runs as probes do? Rank correlation over the runs of a folder.

    python tools/signals.py runs --probe linear_probe

Takes every run that logged RankMe or LiDAR (`log.signals_every_epochs`) and was probed (its
`linear_probe.json`, `knn.json`, ...), and compares the last measured signals with the probe's
figure on the test split. Runs on different data are never mixed. The final loss, turned around,
stands beside them: a signal that orders runs no better than it adds nothing.

Spearman's rank correlation; p is the share of random orders with at least as strong a correlation,
in either direction. A signal is more than a diagnostic only where p is below 0.05 and the
correlation is positive.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mimsuite.noise import keyed_rng
from mimsuite.report.run_facts import RunFacts, read_json
from mimsuite.report.runs import find_runs

SIGNALS = ("rankme", "lidar", "loss")
_ORDERS = 20000  # random ones
_FEWEST = 4  # runs: of three, no order is rare


@dataclass(frozen=True)
class Probed:
    """A run's last signals (the loss negated: more is better) and its probe's figure."""

    path: str
    data: str
    signals: dict[str, float]
    figure: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, help="runs, or folders with runs")
    parser.add_argument("--probe", default="linear_probe", help="name of its JSON file in the run")
    parser.add_argument("--figure", default="balanced_accuracy", help="key of that file")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args()
    found = [probed(path, given.probe, given.figure) for path in find_runs(given.folders)]
    runs = [run for run in found if run is not None]
    results = compare(runs)
    if given.json:
        print(json.dumps({"runs": [vars(run) for run in runs], "correlations": results}, indent=2))
        return 0
    for run in runs:
        words = ", ".join(f"{name} {value:.3f}" for name, value in run.signals.items())
        print(f"{run.path}: {given.probe} {100 * run.figure:.2f} %, {words}")
    for row in results:
        print(
            f"{row['signal']:7} on {row['data']}: rho {row['rho']:+.2f} over {row['runs']} runs, "
            f"p {row['p']:.3f}: {row['verdict']}"
        )
    if not results:
        print(f"{len(runs)} runs with signals and {given.probe}.json: {_FEWEST} on the same data "
              f"are needed", file=sys.stderr)  # fmt: skip
        return 2
    return 0


def probed(path: Path, probe: str, figure: str) -> Probed | None:
    """What a run says; None where it lacks signals or probe."""
    facts = RunFacts.read(path)
    figures = read_json(path / f"{probe}.json").get(figure)
    value = figures.get("pretrained") if isinstance(figures, dict) else None
    columns = {name: facts.column(name) for name in SIGNALS}
    if not isinstance(value, int | float) or not (columns["rankme"] or columns["lidar"]):
        return None
    last = {name: values[-1] for name, values in columns.items() if values}
    if "loss" in last:
        last["loss"] = -last["loss"]
    return Probed(str(path), str(facts.key("data.source")), last, float(value))


def compare(runs: list[Probed]) -> list[dict[str, object]]:
    """Rank correlation of each signal with the figure, for each data set."""
    rows: list[dict[str, object]] = []
    for data in sorted({run.data for run in runs}):
        for name in SIGNALS:
            pairs = [
                (run.signals[name], run.figure)
                for run in runs
                if run.data == data and name in run.signals
            ]
            if len(pairs) < _FEWEST:
                continue
            rho, p = correlation(*np.array(pairs).T)
            verdict = "orders them as the probe does" if rho > 0 and p < 0.05 else "diagnostic only"
            rows.append(
                {"signal": name, "data": data, "runs": len(pairs), "rho": rho, "p": p}
                | {"verdict": verdict}
            )
    return rows


def correlation(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Spearman's rho of (N,) and (N,), ties sharing their mean rank, and its p; 0 and 1 where one
    of them is constant."""
    a, b = ranks(x), ranks(y)
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float((a @ a) * (b @ b)))
    if scale == 0:
        return 0.0, 1.0
    rho = float(a @ b) / scale
    rng = keyed_rng(0, "signals", len(a))
    orders = rng.permuted(np.tile(b, (_ORDERS, 1)), axis=1)
    as_strong = np.abs(orders @ a) / scale >= abs(rho) - 1e-12
    return rho, float((as_strong.sum() + 1) / (_ORDERS + 1))


def ranks(values: np.ndarray) -> np.ndarray:
    """(N,) ranks from 1."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[which]


if __name__ == "__main__":
    sys.exit(main())
