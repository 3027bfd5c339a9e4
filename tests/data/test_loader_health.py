"""What the loader tells of itself while it works."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mimsuite.cli.main import main
from mimsuite.config.keys.shared import Recipe
from mimsuite.data import open_source, train_loader
from mimsuite.data.workers import resident_mb

on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@on_linux
def test_memory_of_processes() -> None:
    mine = resident_mb([os.getpid()])
    assert mine is not None
    assert mine > 50
    assert resident_mb([os.getpid()] * 2) == pytest.approx(2 * mine, rel=0.1)
    assert resident_mb([]) is None
    assert resident_mb([1 << 30]) is None


@on_linux
@pytest.mark.parametrize("workers", [0, 2])
def test_memory_of_the_workers(
    workers: int, make_folder: Callable[..., Path], make_recipe: Callable[..., Recipe]
) -> None:
    recipe = make_recipe(data={"workers": workers})
    with train_loader(open_source(str(make_folder(8))), recipe) as loader:
        assert loader.worker_memory_mb() is None
        stream = iter(loader)
        next(stream)
        memory = loader.worker_memory_mb()
    assert (memory is not None and memory > 50) == bool(workers)
    assert loader.worker_memory_mb() is None


@on_linux
@pytest.mark.parametrize("workers", [0, 1])
def test_the_log_has_what_the_loader_costs(
    workers: int, make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    words = ["--smoke", "schedule.epochs=1", "train.global_batch=4", "train.device=cpu"]
    words += [
        f"data.workers={workers}",
        "--data",
        str(make_folder(8)),
        "--out",
        str(tmp_path / "r"),
    ]
    assert main(["pretrain", "image/mae-tiny-fashion", *words]) == 0
    rows = [
        json.loads(line) for line in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()
    ]
    assert all(row["samples_per_second"] > 0 and 0 <= row["data_wait"] <= 1 for row in rows)
    assert all(("worker_memory_mb" in row) == bool(workers) for row in rows)
