"""A run, the same again, and one resumed from its middle: the same bits, with and without
``train.deterministic``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from safetensors.torch import load_file

from gpu_parts.loading import RECIPE, shards
from gpu_parts.stage import Stage

NAME = "bits"
FILES = ("model", "ema", "optim")


def run(stage: Stage) -> None:
    for sure in (True, False):
        kind = "deterministic" if sure else "as it comes"
        names = [f"resumed, {kind}", f"again, {kind}"]
        if stage.findings.missing(names):
            with stage.findings.trying(names[0]):
                _runs(stage, sure, *names)


def _runs(stage: Stage, sure: bool, resumed_name: str, again_name: str) -> None:
    first, again, resumed = (stage.work / f"bits-{name}" for name in ("first", "again", "resumed"))
    for run in (first, again, resumed):
        shutil.rmtree(run, ignore_errors=True)
    words = ["pretrain", RECIPE, "--data", shards(stage), "--device", stage.device.type]
    words += _keys(stage, sure)
    stage.command(*words, "--out", first)
    shutil.copytree(first, resumed)
    for path in sorted((resumed / "checkpoints").glob("step-*"))[1:]:
        shutil.rmtree(path)
    (resumed / "DONE").unlink()
    stage.command(*words, "--out", resumed, "--resume", "auto")
    _compare(stage, resumed_name, first, resumed, must=sure)
    stage.command(*words, "--out", again)
    _compare(stage, again_name, first, again, must=sure)


def _keys(stage: Stage, sure: bool) -> list[str]:
    samples, batch = stage.size((512, 64), (32, 8))
    keys = [f"data.limit={samples}", f"train.global_batch={batch}"]
    keys += [f"train.micro_batch={batch // 2}", f"train.deterministic={str(sure).lower()}"]
    keys += ["schedule.epochs=1", "schedule.warmup_epochs=0", "log.every_steps=1"]
    keys += [f"checkpoint.every_steps={stage.size(4, 2)}", "checkpoint.keep=9", "train.ema=0.99"]
    keys += ["model.encoder.drop_path=0.1", f"data.workers={stage.size(4, 0)}"]
    return [*keys, "--smoke"] if stage.dry else keys


def _compare(stage: Stage, name: str, run: Path, other: Path, *, must: bool) -> None:
    """How many tensors of the last checkpoint differ, by how much, and from which step on."""
    last = max(path.name for path in (run / "checkpoints").glob("step-*"))
    differ, largest = 0, 0.0
    for file in FILES:
        ours, theirs = (
            load_file(each / "checkpoints" / last / f"{file}.safetensors") for each in (run, other)
        )
        for key, tensor in ours.items():
            off = float((tensor.double() - theirs[key].double()).abs().max())
            differ, largest = differ + (off > 0), max(largest, off)
    pairs = zip(_losses(run), _losses(other), strict=True)
    step = next((number for number, (a, b) in enumerate(pairs, 1) if a != b), None)
    same = not differ and step is None
    holds = same if must or stage.dry else None
    stage.findings.add(name, holds, tensors_that_differ=differ, largest=largest, from_step=step)


def _losses(run: Path) -> list[float]:
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["loss"] for line in lines]
