"""A CAE run: codes are fitted once, kept in checkpoints, and resuming changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from mimsuite import config
from mimsuite.checkpoints import open_model
from mimsuite.config import Resolved
from mimsuite.train.run import train

SMALL: dict[str, Any] = {
    "data.limit": 48,
    "train.global_batch": 16,
    "train.device": "cpu",
    "target.tokenizer.codes": 16,
    "target.tokenizer.samples": 200,
    "model.encoder.image_size": 32,
    "model.encoder.drop_path": 0.2,
    "mask.min_block": 2,
    "checkpoint.every_steps": 2,
    "checkpoint.keep": 9,
    "log.pictures_every_epochs": None,
}


def recipe(**keys: Any) -> Resolved:
    smoke = config.load("image/cae-tiny-clipart", smoke=True)
    return config.with_overrides(smoke, {**SMALL, **keys}, "test")


def newest(run: Path) -> dict[str, torch.Tensor]:
    return load_file(max((run / "checkpoints").glob("step-*")) / "model.safetensors")


def test_a_resumed_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    resolved = recipe(**{"schedule.epochs": 2})
    whole = train(resolved, tmp_path / "whole", quiet=True)
    state = newest(tmp_path / "whole")
    assert bool(state["tokenizer.fitted"])
    assert state["tokenizer.centres"].any()
    log = (tmp_path / "whole" / "train.log").read_text()
    assert "tokenizer: 16 k-means codes of 200 patches" in log

    part = tmp_path / "part"
    train(resolved, part, quiet=True)
    for folder in (part / "checkpoints").glob("step-*"):  # as if it had been killed after step 2
        if folder.name != "step-00000002":
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()
    (part / "DONE").unlink()
    train(resolved, part, resume="auto", quiet=True)
    again = newest(part)
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], state[name]) for name in state)

    opened = open_model(tmp_path / "whole")
    assert torch.equal(opened.method.tokenizer.centres, state["tokenizer.centres"])
    assert opened.has_decoder
    assert whole.step == 6
