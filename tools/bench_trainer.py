"""What training costs beside forward, backward and optimizer: CPU time by part, in one real run.

Two runs of `mimsuite pretrain` on embedded images, decoded by one worker as in any recipe, with a
line of metrics every few steps: a recipe of ours at half its batch, whose steps are near the
shortest that count, and a small ViT of the usual patch size with a moving average of the weights.
Every part is timed on process CPU time while it runs, so the parts and the rest add up to the
whole. Prints one JSON line for each run and number of threads; `--check` exits 1 where what is
outside is more than the project promises (3 % of a step of 0.2 s or more).

Gradient norm and moving average read all weights once a step, at the speed of the memory, so their
share falls with the samples of a step. A model that is large for its batch breaks the promise: a
ViT-Ti of 6 million weights with steps of 0.2 s pays 1 % for the norm and 2 % for the average.

    .venv/bin/python tools/bench_trainer.py --threads 1 2
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does

from torch.optim import Optimizer

from mimsuite import config
from mimsuite.cluster.replica import Replica
from mimsuite.data import Normalize, TrainLoader
from mimsuite.methods.mae import MAE
from mimsuite.train import step as one_step
from mimsuite.train.average import MovingAverage
from mimsuite.train.meter import Meter
from mimsuite.train.precision import Precision
from mimsuite.train.run import train
from mimsuite.train.trainer import Trainer

PROMISED, SHORTEST = 0.03, 0.2  # share of a step, and seconds of it
MODEL = ("forward", "backward", "optimizer")
WARM_UP = 3  # steps
RUNS: dict[str, tuple[str, int, tuple[str, ...]]] = {  # recipe, batch, keys
    "tiny": ("image/mae-tiny-clipart", 192, ()),
    # ViT-S/16 as MAE's encoder with half of its decoder.
    "vit-s": (
        "image/mae-vitb16-in1k",
        16,
        (
            "model.encoder.width=384",
            "model.encoder.heads=6",
            "model.decoder.width=256",
            "model.decoder.depth=4",
            "model.decoder.heads=8",
            "data.source=embedded:openclipart",
            "train.ema=0.999",
        ),
    ),
}
KEYS = (
    "data.workers=1",
    "train.micro_batch=null",
    "train.device=cpu",
    "log.every_steps=5",
    "log.pictures_every_epochs=null",
    "checkpoint.every_steps=null",
    "checkpoint.every_minutes=null",
    "schedule.warmup_epochs=0",
)


class Clock:
    """CPU seconds by part; time inside an inner part does not count for the outer one."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.steps = 0
        self.running = False
        self._parts = ["rest"]
        self._since = 0.0

    def start(self) -> None:
        self.seconds.clear()
        self.running, self._since = True, time.process_time()

    def stop(self) -> None:
        self._book()
        self.running = False

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        self._book()
        self._parts.append(name)
        try:
            yield
        finally:
            self._book()
            self._parts.pop()

    def _book(self) -> None:
        now = time.process_time()
        if self.running:
            self.seconds[self._parts[-1]] += now - self._since
        self._since = now


def watch(clock: Clock) -> None:
    """Time the parts of training where they are called."""

    def timed(owner: Any, name: str, part: str) -> None:
        inner: Callable[..., Any] = getattr(owner, name)

        def outer(*args: Any, **options: Any) -> Any:
            with clock.part(part):
                return inner(*args, **options)

        setattr(owner, name, outer)

    for owner, name, part in (
        (Replica, "__call__", "forward"),
        (Precision, "backward", "backward"),
        (Precision, "step", "optimizer"),
        (Optimizer, "zero_grad", "zero_grad"),
        (Normalize, "__call__", "normalise"),
        (MAE, "prepare", "mask"),
        (MAE, "mask", "mask"),
        (one_step, "_grad_norm", "gradient norm"),
        (Meter, "add", "guard and sums"),
        (MovingAverage, "update", "moving average"),
        (Trainer, "write_log", "log"),
    ):
        timed(owner, name, part)
    batches, step = TrainLoader.__iter__, Trainer.train_step

    def timed_batches(self: TrainLoader) -> Iterator[Any]:
        stream = batches(self)
        while True:
            with clock.part("data"):
                loaded = next(stream)
            yield loaded

    def counted(self: Trainer, *args: Any) -> Any:
        if self.step == WARM_UP:
            clock.start()
        return step(self, *args)

    def last(self: Trainer) -> None:
        clock.stop()  # the one save of this run, at its end, is not written

    TrainLoader.__iter__, Trainer.train_step, Trainer.save = timed_batches, counted, last


def measure(clock: Clock, run: str, keys: list[str], steps: int, threads: int) -> Any:
    recipe, batch, own = RUNS[run]
    own = (*own, f"train.global_batch={batch}", f"train.threads={threads}")
    own = (*own, f"data.limit={4 * batch}")
    resolved = config.load(recipe, [*KEYS, *own, *keys])
    resolved = config.with_overrides(resolved, {"schedule.epochs": (steps + WARM_UP) / 4})
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        train(resolved, Path(folder) / "run", quiet=True)
    total = sum(clock.seconds.values())
    inside = sum(clock.seconds[part] for part in MODEL)
    return {
        "run": run,
        "outside_share": (total - inside) / total,
        "cpu_seconds_per_step": total / steps,
        "shares": {part: value / total for part, value in sorted(clock.seconds.items())},
        "recipe": recipe,
        "batch": batch,
        "threads": threads,
        "steps": steps,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", nargs="+", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--keys", nargs="*", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    clock = Clock()
    watch(clock)
    failed = False
    for run, threads in itertools.product(options.runs, options.threads):
        found = measure(clock, run, options.keys, options.steps, threads)
        print(json.dumps(found), flush=True)
        if found["cpu_seconds_per_step"] < SHORTEST:
            print("the step is too short for the promise to count", file=sys.stderr)
            failed = True
        failed |= found["outside_share"] > PROMISED
    return 1 if options.check and failed else 0


if __name__ == "__main__":
    sys.exit(main())
