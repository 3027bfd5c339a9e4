"""Evidence that makes itself: tables of learning, a row at a time.

    python tools/evidence.py --hours 2     make missing rows, at low priority, on one core
    python tools/evidence.py --hours 2 --cores 2 --tables points-furniture --encoders Point-CMAE
    python tools/evidence.py --pages       write the pages from the rows that exist
    python tools/evidence.py --list        which rows are there, and which are missing

It may be killed at any moment: a row is written whole or not at all, a training goes on from its
last checkpoint, and no row is made twice, also by several that run at once.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from evidence_pages import write_pages
from evidence_rows import (
    LOWEST,
    ROW_SECONDS,
    Failed,
    Place,
    Row,
    Table,
    cores_at_hand,
    make,
    rows_of,
    tables,
)

LOOK_SECONDS = 2.0  # between looks for a row that others are about to make possible


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=float, help="how long to work at most")
    parser.add_argument("--tables", nargs="+", metavar="NAME", help="these only")
    parser.add_argument("--encoders", nargs="+", metavar="NAME", help="rows of these only")
    parser.add_argument("--cores", type=int, default=1, help="rows made at once; default: 1")
    parser.add_argument(
        "--nice", type=int, default=LOWEST, help="priority; 19, the default, is lowest"
    )
    parser.add_argument("--pages", action="store_true", help="write docs/evidence/*.md")
    parser.add_argument("--list", action="store_true", help="count rows of each table")
    options = parser.parse_args()
    if not 1 <= options.cores <= len(cores_at_hand()):
        parser.error(f"--cores {options.cores}: this machine has {len(cores_at_hand())}")
    known = tables()
    _refuse_unknown(parser, "--tables", options.tables, [one.name for one in known])
    plan = [one for one in known if not options.tables or one.name in options.tables]
    names = [encoder.name for one in plan for encoder in one.encoders]
    _refuse_unknown(parser, "--encoders", options.encoders, names)
    if options.list:
        for table in plan:
            rows = list(rows_of(table))
            print(f"{table.name}: {sum(row.done for row in rows)} of {len(rows)} rows")
    if options.hours is not None:
        work(plan, options.hours, options.nice, options.cores, options.encoders)
    if options.pages:
        write_pages(tables())
    return 0


def _refuse_unknown(
    parser: argparse.ArgumentParser, option: str, wanted: list[str] | None, known: list[str]
) -> None:
    for name in wanted or ():
        if name not in known:
            parser.error(f"{option} {name}: the plan has {', '.join(dict.fromkeys(known))}")


def work(
    plan: list[Table],
    hours: float,
    nice: int = LOWEST,
    cores: int = 1,
    encoders: list[str] | None = None,
) -> None:
    """Make rows in the order of the plan, those that verdicts need first, until the time is over.

    Args:
        nice: the priority of each, 19 the lowest.
        cores: how many rows are made at once, on one core each.
        encoders: rows of these encoders only, and what they need; None: of all.
    """
    end = time.monotonic() + 3600 * hours
    given_up: set[str] = set()
    for table in plan:
        for need in table.missing_needs():
            print(f"{table.name} is left out: it needs {need}", flush=True)
    rows = [row for t in plan if not t.missing_needs() for row in rows_of(t)]
    wanted = [row for row in rows if encoders is None or row.encoder.name in encoders]
    needed = set().union(*(row.with_required() for row in wanted))
    waiting = sorted((r for r in rows if r.key in needed), key=lambda row: not row.decides)
    places = [Place(core, nice) for core in cores_at_hand()[-cores:]]
    with ThreadPoolExecutor(cores) as pool:
        for ended in [pool.submit(_work_at, place, waiting, end, given_up) for place in places]:
            ended.result()


def _work_at(place: Place, waiting: list[Row], end: float, given_up: set[str]) -> None:
    """What one core does. A row is claimed by its lock alone, here as between processes."""
    while time.monotonic() < end:
        able = (r for r in waiting if r.key not in given_up and _ready(r, waiting))
        row = next((r for r in able if not r.claimed), None)
        if row is None:
            if not any(r.claimed for r in waiting):
                break
            time.sleep(LOOK_SECONDS)
            continue
        name = f"{row.table.name}: {' '.join(row.command())}"
        print(name, flush=True)
        try:
            done = make(row, min(ROW_SECONDS, max(1.0, end - time.monotonic())), place)
            print(f"{name}: {'done' if done else 'goes on later'}", flush=True)
        except Failed as fault:
            print(f"failed: {fault}", flush=True)
            given_up.add(row.key)


def _ready(row: Row, waiting: list[Row]) -> bool:
    """Whether it can be made, and somebody needs it: a finished run that is gone is made again
    only for a probe of it that is missing."""
    if not row.missing or any(one.missing for one in row.requires()):
        return False
    return not row.done or any(
        one.measure and not one.done and one.run == row.run for one in waiting
    )


if __name__ == "__main__":
    sys.exit(main())
