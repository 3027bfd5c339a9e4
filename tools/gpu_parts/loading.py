"""Images a second from JPEG shards: the loader with its side stream alone, then under training."""

from __future__ import annotations

import io
import json
import os
import shutil
import statistics
import tarfile
import time
from pathlib import Path
from typing import Any

import torch

from gpu_parts.stage import Stage
from mimsuite import config
from mimsuite.data import open_training_set, train_loader
from mimsuite.train.bench_data import photos

NAME = "loading"
RECIPE = "image/mae-vitb16-in1k"
SHARDS = 4


def run(stage: Stage) -> None:
    folder = shards(stage)
    cores = len(os.sched_getaffinity(0))
    for workers in stage.size([8, max(1, cores - 1)], [1]):
        name = f"loader, {workers} workers"
        if stage.findings.missing([name]):
            with stage.findings.trying(name):
                stage.findings.add(name, None, **_loader(stage, folder, workers))
    name = "training from shards"
    if stage.findings.missing([name]):
        with stage.findings.trying(name):
            stage.findings.add(name, None, **_training(stage, folder, stage.size(cores - 1, 1)))


def shards(stage: Stage) -> Path:
    """Tar shards of synthetic JPEG photos of 375 x 500 pixels, made once for all parts."""
    folder = stage.work / "shards"
    if (folder / "whole").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    made = photos(stage.size(128, 8))
    for shard in range(SHARDS):
        with tarfile.open(folder / f"train-{shard}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for number in range(stage.size(2048, 32)):
                photo = made[(shard + number) % len(made)]
                for ending, content in ((photo.extension, photo.content), ("cls", b"0")):
                    member = tarfile.TarInfo(f"{shard}{number:05d}.{ending}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    (folder / "whole").touch()
    return folder


def _batch_keys(stage: Stage) -> list[str]:
    micro = stage.size(256, 8)
    keys = [f"train.micro_batch={micro}", f"train.global_batch={4 * micro}"]
    return [*keys, "data.block=16"] if stage.dry else keys


def _loader(stage: Stage, folder: Path, workers: int) -> dict[str, Any]:
    keys = [f"data.source={folder}", f"data.workers={workers}", *_batch_keys(stage)]
    recipe = config.load(RECIPE, keys, smoke=stage.dry).recipe
    images, seconds = 0, stage.size(6.0, 1.0)
    with train_loader(open_training_set(recipe), recipe, device=stage.device) as loader:
        stream = iter(loader)
        for _ in range(stage.size(8, 2)):  # made while the workers started
            next(stream)
        begun, own = time.perf_counter(), time.thread_time()
        while time.perf_counter() - begun < seconds:
            images += len(next(stream).moved)
        stage.settle()
        own, wall = time.thread_time() - own, time.perf_counter() - begun
    return {"images_per_second": images / wall, "training_thread_ms": 1e3 * own / max(images, 1)}


def _training(stage: Stage, folder: Path, workers: int) -> dict[str, Any]:
    run = stage.work / "from-shards"
    shutil.rmtree(run, ignore_errors=True)
    keys = [*_batch_keys(stage), f"data.workers={workers}", "log.every_steps=1"]
    keys += ["schedule.warmup_epochs=0", f"schedule.epochs={stage.size(4, 1)}"]
    keys += ["checkpoint.every_minutes=null", *(["--smoke"] if stage.dry else [])]
    words = ["pretrain", RECIPE, "--data", folder, "--device", stage.device.type, "--out", run]
    stage.command(*words, *keys)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    late = rows[len(rows) // 2 :]
    names = ("samples_per_second", "data_wait", "memory_mb")
    return {name: statistics.median(row[name] for row in late) for name in names} | {
        "loss_finite": all(torch.isfinite(torch.tensor(row["loss"])) for row in rows)
    }
