"""Latents as shards: read by webdataset, statistics of all, stopped in the middle and gone on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import webdataset

from mimsuite import config
from mimsuite.data import open_split
from mimsuite.errors import UserError
from mimsuite.evaluate import latent_shards
from mimsuite.evaluate.latent_shards import write_latents
from mimsuite.methods import build
from mimsuite.targets.latents import ExactStatistics

KEYS: dict[str, Any] = {
    "model.encoder.width": 16,
    "model.encoder.depth": 1,
    "model.encoder.heads": 2,
    "data.limit": 20,
    "data.workers": 0,
    "eval.batch": 4,
}


def write(out: Path, encoder: str = "run") -> dict[str, Any]:
    resolved = config.with_overrides(config.load("image/mae-tiny-clipart"), KEYS, "test")
    torch.manual_seed(0)
    method = build(resolved.recipe)
    source = open_split(resolved.recipe, "train")
    return write_latents(method, source, resolved, out, encoder=encoder, size=8)


def test_shards_are_read_by_others_and_go_on(tmp_path: Path, monkeypatch: Any) -> None:
    out, real, calls = tmp_path / "latents", latent_shards._write, []

    def stopped(*given: Any) -> ExactStatistics:
        calls.append(given)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*given)

    with monkeypatch.context() as patch:
        patch.setattr(latent_shards, "_write", stopped)
        with pytest.raises(KeyboardInterrupt):
            write(out)
    assert not (out / "latents.json").exists()
    facts = write(out)
    assert facts["kept"] == 1
    shards = sorted(str(path) for path in out.glob("*.tar"))
    assert [Path(path).name for path in shards] == facts["shards"]
    samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode())
    latents = np.stack([one["npy"] for one in samples])
    assert latents.shape == (facts["images"], 16, 8, 8)
    assert latents.dtype == np.float16
    rows = torch.from_numpy(latents).double().permute(0, 2, 3, 1).flatten(0, 2)
    assert facts["count"] == len(rows)
    torch.testing.assert_close(torch.tensor(facts["mean"]).double(), rows.mean(0))
    spread = rows.var(0, unbiased=False).sqrt()
    torch.testing.assert_close(torch.tensor(facts["std"]).double(), spread)
    first = json.loads((out / "latents.json").read_text())
    assert first["encoder"] == "run"
    assert len(first["preprocessing"]["mean"]) == 3
    with pytest.raises(UserError, match="latents of another encoder or source"):
        write(out, "another")
