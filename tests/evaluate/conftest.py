"""A tiny labelled set of pictures and a tiny run that was pretrained on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

CLASSES = {"blue": (40, 60, 200), "green": (40, 200, 60), "red": (200, 60, 40)}
SIZES = {"image_size": 16, "patch_size": 8, "width": 16, "depth": 2, "heads": 2}
COMMON = {
    "optim": {"lr": 1e-3},
    "schedule": {"epochs": 2},
    "train": {"global_batch": 6, "device": "cpu"},
    "log": {"every_steps": 1},
}
PRETRAIN = COMMON | {
    "recipe": {"title": "tiny", "finetune": "tune.yaml", "linear_probe": "probe.yaml"},
    "method": {"name": "mae"},
    "model": {"encoder": SIZES, "decoder": {"width": 16, "depth": 1, "heads": 2}},
    "mask": {"ratio": 0.5},
    "target": {"normalize": True},
    "augment": {"crop": "resize", "mean": [0.4, 0.4, 0.4], "std": [0.3, 0.3, 0.3]},
    "data": {"workers": 0},
}
TUNE = COMMON | {
    "recipe": {"title": "tune", "task": "finetune"},
    "method": {"name": "classify"},
    "model": {
        "encoder": {"drop_path": 0.1, "trained_positions": True},
        "pool": "mean",
        "head_init_std": 2e-5,
    },
    "target": {"label_smoothing": 0.1},
    "augment": {"crop": "resize", "eval_resize": 256},
    "optim": {"lr": 5e-3, "layer_decay": 0.75, "betas": [0.9, 0.999]},
    "schedule": {"epochs": 8, "warmup_epochs": 1},
    "data": {"workers": 0},
}
PROBE = COMMON | {
    "recipe": {"title": "probe", "task": "linear-probe"},
    "method": {"name": "classify"},
    "model": {"pool": "cls", "freeze": True, "head": "bn-linear", "head_init_std": 0.01},
    "target": {},
    "augment": {"crop": "resize"},
    "optim": {"name": "lars", "lr": 1.0, "weight_decay": 0.0},
    "schedule": {"epochs": 4},
    "data": {"workers": 0},
}


def paint(folder: Path, per_class: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for name, colour in CLASSES.items():
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            pixels = np.array(colour) + rng.integers(-40, 40, size=(16, 16, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number}.png")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three colours: 12 training and 6 test pictures of each."""
    folder = tmp_path_factory.mktemp("pictures")
    paint(folder / "train", 12, seed=0)
    paint(folder / "test", 6, seed=1)
    return folder


@pytest.fixture(scope="session")
def recipes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pretrain.yaml, tune.yaml and probe.yaml."""
    folder = tmp_path_factory.mktemp("recipes")
    pretrain = PRETRAIN | {
        "recipe": PRETRAIN["recipe"]
        | {"finetune": str(folder / "tune.yaml"), "linear_probe": str(folder / "probe.yaml")}
    }
    for name, content in {"pretrain": pretrain, "tune": TUNE, "probe": PROBE}.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    return folder


@pytest.fixture(scope="session")
def run(recipes: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of pretrain.yaml."""
    from mimsuite.cli.main import main

    out = tmp_path_factory.mktemp("runs") / "tiny"
    assert (
        main(
            ["pretrain", str(recipes / "pretrain.yaml"), "--data", str(pictures), "--out", str(out)]
        )
        == 0
    )
    return out
