"""A run that began with other lanes than a new one would choose goes on with its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from mimsuite import config
from mimsuite.data.loading import train_loader
from mimsuite.data.order.layout import Layout
from mimsuite.data.order.sample_order import default_lanes
from mimsuite.errors import UserError
from mimsuite.train import run

KEYS = (
    *("data.limit=256", "data.workers=0", "train.device=cpu", "train.global_batch=128"),
    *("schedule.epochs=3", "log.every_steps=1", "log.pictures_every_epochs=null"),
    *("checkpoint.every_steps=1", "checkpoint.keep=9", "model.encoder.drop_path=0.2"),
)


def train(out: Path, *more: str, resume: str = "never") -> Path:
    recipe = config.load("image/mae-tiny-fashion", [*KEYS, *more], smoke=True)
    run.train(recipe, out, resume=resume, quiet=True)
    return out


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def losses(out: Path) -> list[tuple[Any, ...]]:
    return [(row["step"], row["loss"], row["grad_norm"]) for row in lines(out / "metrics.jsonl")]


def tensors(out: Path) -> dict[str, bytes]:
    folder = max((out / "checkpoints").glob("step-*"))
    found = {file.name: load_file(file) for file in sorted(folder.glob("*.safetensors"))}
    return {f"{f}/{name}": t.tobytes() for f, group in found.items() for name, t in group.items()}


def facts(out: Path) -> dict[str, Any]:
    folder = max((out / "checkpoints").glob("step-*"))
    found: dict[str, Any] = json.loads((folder / "state.json").read_text())
    return found


def stopped(whole: Path, out: Path, step: int) -> Path:
    """A copy of a run as it was at a step."""
    shutil.copytree(whole, out)
    (out / "DONE").unlink()
    for checkpoint in (out / "checkpoints").iterdir():
        if int(checkpoint.name.removeprefix("step-")) > step:
            shutil.rmtree(checkpoint)
    return out


@pytest.fixture(scope="module")
def former(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run by the former rule, of up to 64 lanes; its checkpoints do not say how many."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            train_loader,
            "layout_of",
            lambda recipe, sets: Layout(
                default_lanes(recipe.train.global_batch, 64), recipe.data.block
            ),
        )
        patched.setattr(Layout, "facts", lambda self: {})
        return train(tmp_path_factory.mktemp("runs") / "former")


def test_a_run_of_the_former_rule_goes_on_to_the_bit(former: Path, tmp_path: Path) -> None:
    assert "order" not in facts(former)
    out = stopped(former, tmp_path / "run", 3)  # in the middle of an epoch
    train(out, resume="auto")
    assert losses(out) == losses(former)
    assert tensors(out) == tensors(former)
    assert facts(out)["order"] == {"lanes": 64, "block": 1024}
    log = (out / "train.log").read_text()
    assert "samples are read in 64 lanes, as the run began (a new run would have 128)" in log


def test_a_new_run_says_its_lanes_and_keeps_them(
    former: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(tmp_path / "whole")
    assert losses(whole) != losses(former)  # so the lanes do matter here
    assert facts(whole)["order"] == {"lanes": 128, "block": 512}
    (begun,) = (row for row in lines(whole / "events.jsonl") if row["event"] == "start")
    assert (begun["lanes"], begun["block"]) == (128, 512)
    out = stopped(whole, tmp_path / "run", 3)
    monkeypatch.setattr(train_loader, "layout_of", lambda recipe, sets: Layout(32, 16))
    train(out, resume="auto")
    assert losses(out) == losses(whole)
    assert tensors(out) == tensors(whole)


def test_other_lanes_are_refused_and_nothing_is_lost(former: Path, tmp_path: Path) -> None:
    out = stopped(former, tmp_path / "run", 3)
    before = {p: p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}
    with pytest.raises(UserError, match=r"data\.lanes=64; with data\.lanes=128 they would come"):
        train(out, "data.lanes=128", resume="auto")
    after = {p: p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}
    assert {p: c for p, c in after.items() if p in before} == before
    train(out, "data.lanes=64", resume="auto")
    assert tensors(out) == tensors(former)
