"""What joining the parts of a micro-batch costs: rows copied whole, beside a tensor's own indexing.

python tools/bench_join.py [--rows 64] [--parts 8] [--rounds 21]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from mimsuite.data.loading.batch_piece import Part, join
from mimsuite.train.memory import keep_freed_memory

SIDE = 224


def indexed(parts: list[Part], rows: int) -> Tensor:
    joined = torch.empty((rows, 3, SIDE, SIDE), dtype=torch.uint8)
    for part in parts:
        joined[torch.tensor(part.rows)] = part.views["image"]
    return joined


def measure(run: Callable[[], object], rounds: int) -> float:
    """Median seconds of this thread."""
    seconds = []
    for _ in range(rounds):
        begun = time.thread_time()
        run()
        seconds.append(time.thread_time() - begun)
    return statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--parts", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=21)
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as training does
    parts = []
    for number in range(options.parts):
        rows = list(range(number, options.rows, options.parts))
        views = {"image": torch.randint(256, (len(rows), 3, SIDE, SIDE), dtype=torch.uint8)}
        parts.append(Part(rows, rows, [""] * len(rows), [-1] * len(rows), views))
    ours = lambda: join(parts, labelled=False, pin=False).image  # noqa: E731
    assert torch.equal(ours(), indexed(parts, options.rows))
    slow = measure(lambda: indexed(parts, options.rows), options.rounds) / options.rows
    fast = measure(ours, options.rounds) / options.rows
    print(f"by index {1e6 * slow:6.1f} us an image")
    print(f"by row   {1e6 * fast:6.1f} us an image, {slow / fast:.1f} x cheaper")


if __name__ == "__main__":
    main()
