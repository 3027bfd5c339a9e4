"""What every part works with: the device, sizes, clocks, and the command line."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from gpu_parts.findings import Findings
from mimsuite import config
from mimsuite.train.bench import Stepper

Size = TypeVar("Size")


@dataclass(frozen=True)
class Stage:
    """Where a part runs.

    Attributes:
        work: scratch folder of all parts.
        out: folder of the report.
    """

    device: torch.device
    work: Path
    out: Path
    findings: Findings

    @property
    def dry(self) -> bool:
        """On a CPU: tiny sizes, to see that the report itself works."""
        return self.device.type == "cpu"

    def size(self, whole: Size, tiny: Size) -> Size:
        return tiny if self.dry else whole

    def settle(self) -> None:
        """Wait for the device."""
        if not self.dry:
            torch.cuda.synchronize(self.device)

    def milliseconds(self, work: Callable[[], Any], rounds: int = 20) -> dict[str, float]:
        """Mean time of a call: ``ms`` until the device has done it, ``host_ms`` until it is asked
        for. A host time near the whole means that the device waits for launches."""
        for _ in range(3):
            work()
        self.settle()
        begun = time.perf_counter()
        for _ in range(rounds):
            work()
        asked = time.perf_counter() - begun
        self.settle()
        done = time.perf_counter() - begun
        return {"ms": 1e3 * done / rounds, "host_ms": 1e3 * asked / rounds}

    def stepper(
        self, name: str, keys: Sequence[str] = (), *, batch: int, smoke: bool | None = None
    ) -> Stepper:
        """Whole optimizer steps of a recipe on one random batch, ready for the first.

        Args:
            smoke: at its smoke size; ``None``: in a dry run.
        """
        own = [] if smoke or self.dry else ["train.micro_batch=null"]
        resolved = config.load(name, [*own, *keys], smoke=self.dry if smoke is None else smoke)
        torch.manual_seed(0)
        return begun(Stepper(resolved, batch, self.device))

    def command(self, *words: object, seconds: float = 120) -> str:
        """Output of ``mimsuite WORDS``.

        Raises:
            RuntimeError: it failed; the message is the end of what it said.
        """
        call = [sys.executable, "-m", "mimsuite", *map(str, words)]
        done = subprocess.run(call, capture_output=True, text=True, timeout=seconds)
        if done.returncode:
            said = done.stderr.strip()[-600:]
            raise RuntimeError(f"mimsuite {words[0]} ended with {done.returncode}: {said}")
        return done.stdout


def begun(step: Stepper) -> Stepper:
    """Set up the method on its random batch, of which labels are made class ids."""
    for view in {"parts", "labels"} & set(step.batch.views):
        step.batch.views[view] = step.batch.views[view].abs().long() % 2
    step.method.setup(lambda: itertools.repeat(step.batch, 400))
    return step
