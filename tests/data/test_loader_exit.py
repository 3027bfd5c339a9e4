"""A process that ends with a loader still open ends: nobody waits for its workers."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
from mimsuite import config
from mimsuite.data import open_training_set, train_loader

recipe = config.load("image/mae-tiny-fashion", ["data.workers=2"]).recipe
stream = iter(train_loader(open_training_set(recipe), recipe))
print(len(next(stream).batch))
"""


def test_an_open_loader_does_not_keep_the_process() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "128"
