"""A modality of one's own is one file: it is packed, trained on, drawn and probed as others are."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.pages import ROOT, files

PAGE = files(ROOT / "docs" / "adding-a-modality.md")


def mimsuite(*words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mimsuite", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr
    return done


def test_signals_are_packed_trained_on_drawn_and_probed(tmp_path: Path) -> None:
    plugin, recipe, run = tmp_path / "signals.py", tmp_path / "signals.yaml", tmp_path / "run"
    plugin.write_text(PAGE["signals.py"])
    recipe.write_text(PAGE["signals.yaml"])
    rng = np.random.default_rng(0)
    for split, count in (("train", 40), ("test", 16)):
        for number in range(count):
            wave = np.sin(np.arange(64) / (2, 5)[number % 2] + rng.uniform(0, 6))
            path = tmp_path / "waves" / split / ("fast", "slow")[number % 2] / f"{number}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, wave.astype(np.float32))
    (tmp_path / "waves/train/fast/0.npy").write_bytes(b"damaged")
    own, shards = ("--plugin", plugin), tmp_path / "shards"
    packed = mimsuite("data", "pack", tmp_path / "waves", shards, "--modality", "signals", *own)
    assert "55 signals samples" in packed.stderr
    assert "0.npy" in packed.stderr
    mimsuite("pretrain", recipe, *own, "--data", shards, "--out", run)
    assert (run / "DONE").exists()
    mimsuite("reconstruct", run, *own, "--input", shards, "--out", tmp_path / "drawn", "--n", 2)
    assert list((tmp_path / "drawn").glob("*.png"))
    probe = json.loads(mimsuite("linear-probe", run, *own, "--data", shards, "--json").stdout)
    assert probe["accuracy"]["pretrained"] > 0.5
    wrong = mimsuite("data", "inspect", shards, code=2)
    assert "no modality 'signals'" in wrong.stderr
