"""Trains on a disk whose first save takes its time; run by each rank."""

from __future__ import annotations

import time
from typing import Any

from mimsuite.cli.main import main
from mimsuite.train import checkpoint


def train(seconds: str, *words: str) -> int:
    save, left = checkpoint.save, [float(seconds)]

    def slow(*arguments: Any) -> Any:
        time.sleep(left.pop() if left else 0)
        return save(*arguments)

    checkpoint.save = slow
    return main(words)
