"""Trains on a disk whose first save takes its time, or with slow measurements; run by each rank."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mimsuite import report
from mimsuite.cli.main import main
from mimsuite.train import checkpoint, sharded_files, signals


def train(seconds: str, *words: str) -> int:
    save, left = checkpoint.save, [float(seconds)]

    def slow(*arguments: Any) -> Any:
        time.sleep(left.pop() if left else 0)
        return save(*arguments)

    checkpoint.save = slow
    return main(words)


def train_measured(seconds: str, *words: str) -> int:
    """The first RankMe and the first picture take their time on the first rank."""

    def slow(work: Callable[..., Any]) -> Callable[..., Any]:
        left = [float(seconds)]

        def call(*arguments: Any, **options: Any) -> Any:
            time.sleep(left.pop() if left else 0)
            return work(*arguments, **options)

        return call

    signals.measure = slow(signals.measure)
    report.first_pictures = slow(report.first_pictures)
    return main(words)


def train_on(out: str, *words: str) -> int:
    """The first part that rank 1 writes is not ready before training is three steps further."""
    write, waited = sharded_files.write_part, list[bool]()

    def slow(folder: Path, pieces: Any, rank: int, world: int) -> str:
        until = time.monotonic() + 60
        step = int(folder.name.split("-")[2])
        while rank == 1 and not waited and _steps(Path(out)) < step + 3:
            if time.monotonic() > until:
                return sharded_files.failure(rank, OSError("training waits for this part"))
            time.sleep(0.01)
        waited.append(True)
        return write(folder, pieces, rank, world)

    sharded_files.write_part = slow
    return main(words)


def _steps(out: Path) -> int:
    metrics = out / "metrics.jsonl"
    return len(metrics.read_text().splitlines()) if metrics.exists() else 0
