"""A run on a disk that is full for a while; started with the disk's folder as argument.

Prints what happened as JSON.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from mimsuite.train import checkpoint

LEFT = 600_000  # bytes: too few for a checkpoint, enough for the log
SECONDS = 120


def main(disk: Path, words: list[str]) -> None:
    run = disk / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "mimsuite", *words, "--out", str(run)],
        stderr=subprocess.PIPE,
        text=True,
    )
    saved = run / "checkpoints"
    wait(process, lambda: len(list(saved.glob("step-*"))) > 0)
    fill = disk / "fill"
    fill.write_bytes(bytes(max(0, shutil.disk_usage(disk).free - LEFT)))
    wait(process, lambda: "not written" in (run / "train.log").read_text())
    during, rejected = checkpoint.newest(saved)
    left_behind = [path.name for path in saved.glob(".*")]
    fill.unlink()
    _, said = process.communicate(timeout=SECONDS)
    print(
        json.dumps(
            {
                "code": process.returncode,
                "said": said,
                "during": str(during),
                "rejected": rejected,
                "left_behind": left_behind,
                "after": [path.name for path in checkpoint.steps(saved)],
                "damaged": [p.name for p in checkpoint.steps(saved) if checkpoint.damage(p)],
                "done": (run / "DONE").exists(),
            }
        )
    )


def wait(process: subprocess.Popen, until) -> None:
    deadline = time.monotonic() + SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if until():
                return
        except OSError:
            pass
        time.sleep(0.005)
    raise SystemExit(f"waited in vain: {process.poll()} {process.communicate()[1]}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
