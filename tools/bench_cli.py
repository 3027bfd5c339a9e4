"""Time `mimsuite --help` and `mimsuite recipes list`, each time in a process of its own.

Beside them, in turns, `python -c "import typer, rich, pydantic"`, the least that any such command
line would take. Prints one JSON line of medians in seconds and their ratios; `--check` exits 1 when
a ratio is above the one that the project promises (2).

    .venv/bin/python tools/bench_cli.py --rounds 11
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

PROMISED = 2.0
MIMSUITE = str(Path(sys.executable).with_name("mimsuite"))
BASE = "import typer, rich, pydantic"
COMMANDS = {
    BASE: [sys.executable, "-c", BASE],
    "mimsuite --help": [MIMSUITE, "--help"],
    "mimsuite recipes list": [MIMSUITE, "recipes", "list"],
}


def seconds(command: list[str]) -> float:
    begun = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begun


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for turn in range(options.rounds + 1):
        for name, command in COMMANDS.items():
            taken = seconds(command)
            if turn:  # the first one fills the disk's cache
                times[name].append(taken)
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratios = {name: value / medians[BASE] for name, value in medians.items() if name != BASE}
    print(json.dumps({"seconds": medians, "ratio": ratios, "rounds": options.rounds}))
    return 1 if options.check and max(ratios.values()) > PROMISED else 0


if __name__ == "__main__":
    sys.exit(main())
