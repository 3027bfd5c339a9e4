"""Losses that are not finite: skipped on all ranks alike, gone back from once, then an end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file

METHOD = """
import json, os
from pathlib import Path
from typing import Literal

import torch

from mimsuite.config.vocabulary import *
from mimsuite.methods.base import Method, Output
from mimsuite.models import build_encoder


_FAULT = json.loads(os.environ.get("FAULT", "{}"))
if "blind" in _FAULT and os.environ.get("RANK") == _FAULT["blind"]["rank"]:
    from mimsuite.train import checkpoint

    _damage = checkpoint.damage
    checkpoint.damage = lambda path, **options: (
        "a stale file handle" if path.name == _FAULT["blind"]["to"] else _damage(path, **options)
    )


class FaultySection(MethodSection):
    name: Literal["faulty"]


class FaultyModelSection(Section):
    encoder: ViTSection


class FaultyRecipe(Recipe):
    method: FaultySection
    model: FaultyModelSection
    mask: EmptySection = EmptySection()
    target: EmptySection = EmptySection()


class Faulty(Method):
    Recipe = FaultyRecipe

    def __init__(self, recipe):
        super().__init__(recipe)
        self.encoder = build_encoder(recipe.model.encoder)

    def mask(self, batch, noise, ctx):
        return {}

    def panels(self, batch, masks, ctx):
        return []

    def forward(self, batch, masks, ctx):
        found = self.encoder.encode(batch, noise=ctx.noise).pool("mean")
        loss = (found - batch.image.mean((1, 2, 3))[:, None]).square().mean()
        fault = json.loads(os.environ.get("FAULT", "{}"))
        ours = os.environ.get("RANK", "0") == fault.get("rank", "0")
        over = Path(fault["once"]) if "once" in fault else None
        if ctx.noise.step == fault.get("hungry"):
            torch.empty(1 << 50)
        if ours and ctx.noise.step in fault.get("steps", []) and not (over and over.exists()):
            loss = loss * torch.tensor(float("nan"))
            if over and ctx.noise.step == fault["steps"][-1]:
                over.touch()
        return Output(loss, {}, None, {})
"""
RECIPE = """
recipe: {title: faulty}
method: {name: faulty}
model: {encoder: {image_size: 28, patch_size: 7, in_channels: 1, width: 16, depth: 1, heads: 2}}
data: {source: "embedded:fashion-mnist", channels: gray, workers: 0, limit: 320}
augment: {crop: none, mean: [0.29], std: [0.35]}
optim: {lr: 1e-3}
schedule: {epochs: 1}
train: {global_batch: 16, ema: 0.9, max_bad_steps: 4}
log: {every_steps: 2}
checkpoint: {every_steps: 2, every_minutes: null, keep: 9}
"""
STEPS = 320 // 16


@pytest.fixture
def train(tmp_path):
    (tmp_path / "faulty.py").write_text(METHOD)
    (tmp_path / "faulty.yaml").write_text(RECIPE)

    def run(name: str, *words: str, code: int = 0, **fault: object) -> tuple[Path, str]:
        out = tmp_path / name
        files = [tmp_path / "faulty.yaml", "--plugin", tmp_path / "faulty.py", "--out", out]
        command = [sys.executable, "-m", "mimsuite", "pretrain", *map(str, files), *words]
        environment = {**os.environ, "FAULT": json.dumps(fault)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return out, done.stderr

    run.folder = tmp_path
    return run


def events(out: Path, name: str) -> list[dict]:
    lines = (out / "events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == name]


def state(out: Path, step: int) -> dict[str, dict]:
    folder = out / "checkpoints" / f"step-{step:08d}"
    return {file.name: load_file(file) for file in folder.glob("[!r]*.safetensors")}


def equal(one: dict[str, dict], other: dict[str, dict]) -> bool:
    return one.keys() == other.keys() and all(
        one[file][name].tobytes() == other[file][name].tobytes()
        for file in one
        for name in one[file]
    )


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_bad_step_of_one_rank_is_skipped_by_all(train, parallel):
    key = f"train.parallel={parallel}"
    out, _ = train("run", "--procs", "2", key, steps=[6, 7], rank="1")
    assert [event["steps"] for event in events(out, "skip")] == [2]
    before, after = state(out, 6), state(out, 8)
    assert equal(before, after)  # weights, optimizer and moving average are untouched
    assert not equal(after, state(out, 10))
    assert (out / "DONE").exists()


def test_no_memory_left_is_said_with_what_was_in_use_and_what_helps(train):
    keys = ("train.precision=bf16", "checkpoint.every_steps=null")
    out, said = train("run", *keys, code=1, hungry=3)
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "out of memory at step 3, with " in line
    assert " MiB in use at the peak: set train.micro_batch=8 (now 16" in line
    assert "train.checkpoint_activations=true" in line
    assert "out of memory" in json.loads((out / "FAILED").read_text())["reason"]


def test_what_passes_is_gone_back_from_and_leaves_no_trace(train):
    whole, _ = train("whole")
    out, said = train("run", steps=[9, 10, 11, 12, 13], once=str(whole / "over"))
    (rewind,) = events(out, "rewind")
    assert (rewind["step"], rewind["to"], rewind["bad_steps"]) == (14, 8, 5)
    assert "warning: no finite loss in 5 steps: back from step 14 to 8" in said
    assert equal(state(out, STEPS), state(whole, STEPS))
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(2, STEPS + 1, 2))


def test_all_ranks_go_back_to_one_checkpoint(train):
    words = ("--procs", "2", "train.timeout_seconds=5")
    blind = {"rank": "1", "to": "step-00000008"}  # which its node cannot read at that moment
    once = str(train.folder / "over")
    out, _ = train("run", *words, steps=[9, 10, 11, 12, 13], once=once, blind=blind)
    (rewind,) = events(out, "rewind")
    assert (rewind["step"], rewind["to"]) == (14, 8)
    assert "rewind at step 14" in (out / "logs" / "rank-00001.log").read_text()
    assert (out / "DONE").exists()


def test_what_comes_back_ends_the_run_and_can_be_replayed(train):
    bad = list(range(9, STEPS))
    out, said = train("run", code=4, steps=bad)
    assert len(events(out, "rewind")) == 1
    assert "error: no finite loss in 5 steps up to step 14" in said
    assert (out / "FAILED").exists()
    (file,) = out.glob("bad-batch-*.safetensors")
    assert f"mimsuite bench replay {file}" in said
    plugin = ["--plugin", str(out.parent / "faulty.py")]
    command = [sys.executable, "-m", "mimsuite", "bench", "replay", str(file), "--json", *plugin]
    fault = {"FAULT": json.dumps({"steps": bad})}
    for environment, finite in ((fault, False), ({}, True)):
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, **environment}
        )
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found["step"] == 13
        assert len(found["keys"]) == 16
        assert (found["not_finite"] == []) is finite
