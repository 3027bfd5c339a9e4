"""Make the reference curve of a recipe from runs of it with different seeds.

    mimsuite pretrain points/cmae-tiny-furniture --out runs/0 train.seed=0   # and 1, 2
    python tools/reference_curves.py points/cmae-tiny-furniture runs/0 runs/1 runs/2

Writes ``mimsuite/report/reference_curves/points/cmae-tiny-furniture.json``: steps, and the mean,
lowest and highest of the smoothed losses.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import yaml

from mimsuite import config
from mimsuite.report.reference import FOLDER, settings_of
from mimsuite.report.run_facts import RunFacts
from mimsuite.report.smoothing import SMOOTH, points_of, smoothed

POINTS = 80  # of the curve that is kept


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", help="catalog name")
    parser.add_argument("runs", nargs="+", type=Path, help="finished runs of it")
    options = parser.parse_args()
    curve = curve_of(options.recipe, [RunFacts.read(run) for run in options.runs])
    path = (FOLDER / options.recipe).with_suffix(".json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(curve) + "\n")
    print(f"{path}: {path.stat().st_size} bytes")
    return 0


def curve_of(recipe: str, runs: list[RunFacts]) -> dict[str, Any]:
    """The content of the file."""
    settings = settings_of(yaml.safe_load(config.load(recipe).yaml()))
    lines: list[list[float]] = []
    steps: list[float] = []
    for run in runs:
        if run.status is None or run.status[0] != "DONE" or settings_of(run.config) != settings:
            raise SystemExit(f"{run.path} is no finished run of {recipe} as it is")
        points = points_of(run.rows, "loss")
        if steps and [step for step, _ in points] != steps:
            raise SystemExit(f"{run.path} has logged other steps than {runs[0].path}")
        steps = [step for step, _ in points]
        lines.append(smoothed([loss for _, loss in points], len(points) / SMOOTH))
    kept = range(0, len(steps), math.ceil(len(steps) / POINTS))
    kept = sorted({*kept, len(steps) - 1})
    columns = [[line[i] for line in lines] for i in kept]
    return {
        "recipe": recipe,
        "runs": len(runs),
        "settings": settings,
        "steps": [steps[i] for i in kept],
        "loss": [float(f"{sum(column) / len(column):.4g}") for column in columns],
        "low": [float(f"{min(column):.4g}") for column in columns],
        "high": [float(f"{max(column):.4g}") for column in columns],
    }


if __name__ == "__main__":
    sys.exit(main())
