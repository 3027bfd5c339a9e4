"""Latent prediction with a momentum teacher trains alike on any number of ranks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mimsuite.train import checkpoint

RECIPES = (
    "image/ijepa-tiny-clipart",
    "image/vjepa2-tiny-clipart",
    "image/data2vec2-tiny-clipart",
    "image/capi-tiny-clipart",
)
SMALL = (
    "--smoke",
    "data.limit=96",
    "train.global_batch=24",
    "data.lanes=6",
    "schedule.epochs=2",
    "log.every_steps=1",
    "log.pictures_every_epochs=null",
    "log.signals_every_epochs=null",
    "checkpoint.every_steps=4",
    "checkpoint.every_minutes=null",
)
STEPS = 2 * 96 // 24
COLUMNS = ("loss", "grad_norm", "target_deviation", "prediction_deviation", "momentum")


@pytest.fixture(scope="module", params=RECIPES)
def train(ranks, request):
    def run(out: Path, *words: object, world: int = 2) -> Path:
        codes, said = ranks.run(
            "pretrain", request.param, *SMALL, "--out", out, *words, ranks=world
        )
        assert codes == [0] * world, said
        return out

    return run


@pytest.fixture(scope="module")
def one(train, tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("latent") / "one", world=1)


def rows(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def model(out: Path, step: int = STEPS) -> dict[str, torch.Tensor]:
    return dict(checkpoint.read(out / "checkpoints" / f"step-{step:08d}").model)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_ranks_equal_one_process(train, one, tmp_path, parallel):
    two = train(tmp_path / "two", f"train.parallel={parallel}")
    assert len(rows(two)) == STEPS
    for ours, wanted in zip(rows(two), rows(one), strict=True):
        for column in COLUMNS:
            assert ours[column] == pytest.approx(wanted[column], rel=1e-6), column
    found = model(two)
    for name, tensor in model(one).items():
        ours, wanted = found[name], tensor
        if name.endswith("qkv.bias"):  # the keys' part has no gradient but rounding
            ours, wanted = (torch.cat([t.chunk(3)[0], t.chunk(3)[2]]) for t in (ours, wanted))
        torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-5, msg=name)


def test_a_sharded_run_goes_on_as_if_never_stopped(train, tmp_path):
    words = ("train.parallel=fsdp", "checkpoint.keep=9")
    whole = train(tmp_path / "whole", *words)
    half = whole / "checkpoints" / "step-00000004"
    again = train(tmp_path / "again", *words, "--resume", half)
    for name, tensor in model(whole).items():
        assert torch.equal(model(again)[name], tensor), name
