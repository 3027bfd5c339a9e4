"""A small MAE, and what a run directory asks of a resolved recipe."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mimsuite.batch import Batch
from mimsuite.methods import build
from mimsuite.methods.mae import MAERecipe
from mimsuite.report import RunDirectory


def recipe(**sections: Any) -> MAERecipe:
    document = {
        "method": {"name": "mae"},
        "model": {
            "encoder": {"image_size": 32, "patch_size": 8, "width": 16, "depth": 1, "heads": 2},
            "decoder": {"width": 16, "depth": 1, "heads": 2},
        },
        "mask": {"ratio": 0.75},
        "target": {"normalize": True},
        "optim": {"lr_per_256": 1.5e-4},
        "schedule": {"epochs": 2},
        "train": {"global_batch": 64},
    }
    return MAERecipe.model_validate(document | sections)


@pytest.fixture
def resolved() -> Any:
    return SimpleNamespace(
        name="image/small",
        recipe=recipe(),
        changed={"mask.ratio": 0.75},
        origins={"mask.ratio": "command line"},
        yaml=lambda: "recipe:\n  title: Small\ntrain:\n  global_batch: 64\n",
        changed_yaml=lambda: "mask:\n  ratio: 0.75\n",
    )


@pytest.fixture
def run(tmp_path, resolved, monkeypatch) -> RunDirectory:
    monkeypatch.setattr("sys.argv", ["/bin/mimsuite", "pretrain", "image/small", "data.source=a b"])
    return RunDirectory.create(tmp_path / "run", resolved, resume=False)


@pytest.fixture
def method():
    torch.manual_seed(0)
    return build(recipe())


@pytest.fixture
def batch() -> Batch:
    return Batch.of_images(torch.randn(12, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
