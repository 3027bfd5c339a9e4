"""Fine-tuning looks for what is not used once, however often it trains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mimsuite.cli.main import main
from mimsuite.data.packing import inspection


@pytest.fixture
def animated(tmp_path: Path) -> Path:
    """Twelve GIF files of two frames a class, and four test ones."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 4)):
        for label in ("a", "b"):
            folder = tmp_path / "set" / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                frames = [Image.fromarray(rng.integers(0, 255, (28, 28), np.uint8)) for _ in "12"]
                frames[0].save(folder / f"{number}.gif", save_all=True, append_images=frames[1:])
    return tmp_path / "set"


def test_sixteen_samples_for_all_trainings(
    animated: Path, run: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    spread = inspection._spread

    def counted(total: int, wanted: int) -> list[int]:
        chosen = spread(total, wanted)
        looks.append(len(chosen))
        return chosen

    monkeypatch.setattr(inspection, "_spread", counted)
    out = tmp_path / "out"
    words = ["finetune", str(run), "--data", str(animated), "--out", str(out), "--baselines"]
    keys = ["schedule.epochs=1", "schedule.warmup_epochs=0", "train.global_batch=8"]
    assert main([*words, *keys]) == 0
    assert looks == [8, 8]
    assert "frames after the first" in capsys.readouterr().err  # of the test split
    for name in ("pretrained", "from_scratch"):
        lines = (out / name / "events.jsonl").read_text().splitlines()
        events = {event["event"]: event for event in map(json.loads, lines)}
        (kind,) = events["unused"]["unused"]
        assert (kind["count"], kind["looked_at"]) == (8, 8)
