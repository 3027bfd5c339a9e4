"""The linear probe on large cached features: seconds and peak memory, as one JSON line.

python tools/bench_probe.py            50,000 made features, width 768, 100 classes, 3 depths
python tools/bench_probe.py --check    fails above three minutes or 2 GB (on two cores)
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line has it; read by torch

import torch

from mimsuite.evaluate.probes.linear import LinearGrid
from mimsuite.evaluate.probes.probe import fit_linear
from mimsuite.evaluate.split import stratified_holdout
from mimsuite.train.device import peak_memory_mb

SECONDS, MEGABYTES = 180.0, 2000.0
RATES = tuple(float(rate) for rate in torch.logspace(-4, -0.5, 20))


def main() -> int:
    parser = argparse.ArgumentParser(description="Time the linear probe on made features.")
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--depths", type=int, default=3)
    parser.add_argument("--check", action="store_true", help="compare with the limits")
    options = parser.parse_args()
    found = measured(options.samples, options.width, options.classes, options.depths)
    print(json.dumps(found))
    slow = found["seconds"] > SECONDS or found["peak_mb"] > MEGABYTES
    return int(options.check and slow)


def measured(samples: int, width: int, classes: int, depths: int) -> dict[str, Any]:
    """One probe: every rate at every depth, then the figure on the best depth."""
    labels = torch.arange(samples) % classes
    tables = {f"mean@{depth}": made(labels, width, depth) for depth in range(1, depths + 1)}
    grid = LinearGrid(RATES, (0.0,), epochs=10, min_steps=1)
    parts = stratified_holdout(labels, 0.2, 0)
    begun, spent = time.monotonic(), time.process_time()
    _, chosen = fit_linear(tables, labels, classes, parts, grid, 0)
    return {
        "seconds": round(time.monotonic() - begun, 1),
        "cpu_seconds": round(time.process_time() - spent, 1),
        "peak_mb": round(peak_memory_mb(torch.device("cpu"))),
        "threads": torch.get_num_threads(),
        "samples": samples,
        "width": width,
        "classes": classes,
        "depths": depths,
        "rates": len(RATES),
        "epochs": grid.epochs,
        "chosen": chosen,
    }


def made(labels: torch.Tensor, width: int, depth: int) -> torch.Tensor:
    """Classes around centres, clearer with depth."""
    generator = torch.Generator().manual_seed(depth)
    centres = torch.randn(int(labels.max()) + 1, width, generator=generator)
    noise = torch.randn(len(labels), width, generator=generator)
    return noise.add_(centres[labels], alpha=0.05 * depth)


if __name__ == "__main__":
    sys.exit(main())
