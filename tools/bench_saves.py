"""What saving takes from training: a state of a gigabyte, saved again and again meanwhile.

    python tools/bench_saves.py                    9 saves of 1 GiB to a folder beside this one
    python tools/bench_saves.py --mib 256 --out /disk/folder

The training thread is timed in `save` and in the wait before the next step is applied; between the
two it multiplies matrices, as long as the gradients of a step take (`--step`). Prints one JSON
line: seconds of the training thread on the clock (`blocked`) and of the processor (`worked`),
seconds until the checkpoint was whole (`written`), and shares of it; all are medians of the saves.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mimsuite.cluster.peers import ALONE
from mimsuite.config.keys.shared import CheckpointSection
from mimsuite.train.checkpoint import CheckpointState
from mimsuite.train.saving import Saver

SIDE = 1024  # a weight is SIDE x SIDE


class Folder:
    """What a saver needs of a run directory."""

    def __init__(self, path: Path) -> None:
        self.checkpoints = path

    def event(self, name: str, step: int) -> None:
        """Not noted."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what saving takes from training.")
    parser.add_argument("--mib", type=int, default=1024, help="size of the state")
    parser.add_argument("--saves", type=int, default=9)
    parser.add_argument("--step", type=float, default=1.0, help="seconds of a step's gradients")
    parser.add_argument("--out", type=Path, default=None, help="on the disk to measure")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="saves-", dir=options.out) as folder:
        rows = measure(Path(folder), options.mib, options.saves, options.step)
    found = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
    found |= {name: round(value, 4) for name, value in found.items()}
    print(json.dumps({"mib": options.mib, "saves": options.saves, **found}))


def measure(folder: Path, mib: int, saves: int, step: float) -> list[dict[str, float]]:
    layers = max(1, mib // 12)  # weight and two moments of 4 MiB each
    weights = {f"blocks.{n}.weight": torch.rand(SIDE, SIDE) for n in range(layers)}
    moments = {f"{n}/{m}": torch.rand(SIDE, SIDE) for n in weights for m in ("exp_avg", "sq")}
    saver = Saver(ALONE, CheckpointSection(keep=1), print)
    hold = getattr(saver, "hold", lambda: None)
    run: Any = Folder(folder)
    rows = []
    for number in range(saves + 1):
        state = CheckpointState(number, {}, weights, moments, **fixed(weights))
        begun = time.monotonic()
        blocked, worked = timed(partial(saver.save, run, state, last=False))
        del state
        compute(step)
        waited, work = timed(hold)
        for tensor in weights.values():
            tensor.add_(1e-4)
        while saver._on_its_way is not None and not saver._on_its_way.ended.done():
            time.sleep(0.001)
        written = time.monotonic() - begun
        saver.look()
        blocked, worked = blocked + waited, worked + work
        rows.append(
            {"blocked": blocked, "worked": worked, "written": written}
            | {"blocked_share": blocked / written, "worked_share": worked / written}
        )
        shutil.rmtree(folder / f"step-{number - 1:08d}", ignore_errors=True)
    return rows[1:]  # the first one warms up


def fixed(weights: dict[str, torch.Tensor]) -> dict[str, Any]:
    """All weights stay as they are until the step is applied."""
    known = "fixed" in CheckpointState.__dataclass_fields__
    return {"fixed": set(weights)} if known else {}


def timed(call: Any) -> tuple[float, float]:
    """Seconds on the clock and of this thread."""
    clock, own = time.monotonic(), time.thread_time()
    call()
    return time.monotonic() - clock, time.thread_time() - own


def compute(seconds: float) -> None:
    left, right = torch.rand(512, 512), torch.rand(512, 512)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        left @ right


if __name__ == "__main__":
    main()
