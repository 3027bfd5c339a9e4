"""Times of several sides taken in turns, so that what changes on the machine meets all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

Side = Callable[[], object]


def seconds(run: Side) -> float:
    """CPU seconds of one call."""
    begun = time.process_time()
    run()
    return time.process_time() - begun


def in_turns(sides: Mapping[str, Side], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each side in each round, by its name; every second round goes backwards."""
    for run in sides.values():  # first calls allocate
        run()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        order = list(sides) if number % 2 == 0 else list(reversed(sides))
        for name in order:
            times[name].append(seconds(sides[name]))
    return times
