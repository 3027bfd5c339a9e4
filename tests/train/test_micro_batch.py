"""`train.micro_batch: auto`: as many samples at once as fit, and the same after a resume."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mimsuite import config
from mimsuite.errors import UserError
from mimsuite.train import micro_batch
from mimsuite.train.cost_plan import Devices, make_plan
from mimsuite.train.estimate import estimate
from mimsuite.train.micro_batch import estimated, first_that_fits, sizes_of
from mimsuite.train.run import train

CPU = torch.device("cpu")
AUTO = ("train.micro_batch=auto", "train.global_batch=24")
TINY = "image/mae-tiny-fashion"


def tiny(*keys: str):
    return config.load(TINY, [*AUTO, *keys], smoke=True)


def test_the_largest_even_share_that_fits_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny().recipe
    assert sizes_of(recipe, 2) == [1, 2, 3, 4, 6, 12]
    counted = estimate(recipe)
    for room, wanted in ((7, 6), (100, 12), (0.1, 1)):
        size = max(1, int(room))
        free = counted.memory(size, on_host=True).total * (1 if room >= 1 else 0.1)
        monkeypatch.setattr(micro_batch, "usable_memory", lambda free=free: 2 * free / 0.8 + 8)
        assert estimated(recipe, CPU, 2, "fp32") == wanted


def test_devices_must_share_the_batch_evenly() -> None:
    with pytest.raises(UserError, match="cannot be shared evenly by 5 devices"):
        sizes_of(tiny().recipe, 5)


def test_sizes_that_the_recipe_refuses_are_left_out() -> None:
    keys = ["train.micro_batch=auto", "train.global_batch=12", "target.mixup=0.8"]
    assert sizes_of(config.load("image/mae-tiny-finetune", keys).recipe, 1) == [2, 4, 6, 12]


def test_sizes_are_halved_until_one_fits() -> None:
    asked: list[int] = []

    def fits(size: int) -> bool:
        asked.append(size)
        return size <= 4

    assert first_that_fits([1, 2, 3, 4, 6, 8, 12, 24], 24, fits) == 3
    assert asked == [24, 12, 6, 3]
    with pytest.raises(UserError, match="not even 1 fit"):
        first_that_fits([1, 2], 2, lambda size: False)


def test_a_plan_shows_the_size() -> None:
    resolved = tiny()
    free = estimate(resolved.recipe).memory(6).total / 0.9 + 8
    plan = make_plan(resolved, Devices("GPU", 1, free, False, "fp32"))
    assert (plan.per_device, plan.accumulation, plan.fits) == (6, 4, True)


def test_a_resumed_run_keeps_the_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = ("data.limit=48", "data.workers=0", "train.device=cpu")
    sizes = iter([6, 12])
    monkeypatch.setattr(micro_batch, "estimated", lambda *_: next(sizes))
    for epochs, resume in ((1, "never"), (2, "auto")):
        train(tiny(*keys, f"schedule.epochs={epochs}"), tmp_path / "run", resume=resume, quiet=True)
    assert json.loads((tmp_path / "run" / "env.json").read_text())["micro_batch"] == 6
    assert "micro_batch: auto" in (tmp_path / "run" / "config.yaml").read_text()
    assert next(sizes) == 12  # nobody has asked
