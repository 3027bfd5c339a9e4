"""A disk that is full for a while costs checkpoints, not the run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests import needs

DRIVER = Path(__file__).with_name("full_disk.py")
WORDS = (
    *("pretrain", "image/mae-tiny-fashion", "--smoke", "model.encoder.width=64", "train.ema=0.9"),
    *("data.limit=512", "train.global_batch=32", "schedule.epochs=4", "log.every_steps=4"),
    *(
        "log.pictures_every_epochs=null",
        "checkpoint.every_steps=8",
        "checkpoint.every_minutes=null",
    ),
    "checkpoint.keep=2",
)


def test_training_goes_on_while_the_disk_is_full(tmp_path: Path) -> None:
    needs.mounts()
    disk = tmp_path / "disk"
    disk.mkdir()
    script = 'mount -t tmpfs -o size=9m tmpfs "$0" && exec "$@"'
    command = [sys.executable, str(DRIVER), str(disk), *WORDS]
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script, str(disk), *command],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["code"] == 0, found["said"]
    assert found["done"]
    warnings = [line for line in found["said"].splitlines() if "not written" in line]
    assert 1 <= len(warnings) <= 2
    assert "warning: checkpoint at step " in warnings[0]
    assert "MiB free" in warnings[0]
    assert (found["rejected"], found["left_behind"], found["damaged"]) == ([], [], [])
    assert "step-000000" in found["during"]
    assert len(found["after"]) == 2
    assert found["after"][0] == "step-00000064"
