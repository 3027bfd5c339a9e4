"""Evidence that makes itself: tables of learning, a row at a time.

    python tools/evidence.py --hours 2     make missing rows, at low priority, on one core
    python tools/evidence.py --pages       write the pages from the rows that exist
    python tools/evidence.py --list        which rows are there, and which are missing

It may be killed at any moment: a row is written whole or not at all, a training goes on from its
last checkpoint, and no row is made twice.
"""

from __future__ import annotations

import argparse
import sys
import time

from evidence_pages import write_pages
from evidence_rows import LOWEST, ROW_SECONDS, Failed, Row, make, rows_of, tables


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=float, help="how long to work at most")
    parser.add_argument("--tables", nargs="+", metavar="NAME", help="these only")
    parser.add_argument(
        "--nice", type=int, default=LOWEST, help="priority; 19, the default, is lowest"
    )
    parser.add_argument("--pages", action="store_true", help="write docs/evidence/*.md")
    parser.add_argument("--list", action="store_true", help="count rows of each table")
    options = parser.parse_args()
    plan = [one for one in tables() if not options.tables or one.name in options.tables]
    if options.list:
        for table in plan:
            rows = list(rows_of(table))
            print(f"{table.name}: {sum(row.done for row in rows)} of {len(rows)} rows")
    if options.hours is not None:
        work(plan, options.hours, options.nice)
    if options.pages:
        write_pages(tables())
    return 0


def work(plan: list, hours: float, nice: int = LOWEST) -> None:
    """Make rows in the order of the plan until the time is over."""
    end = time.monotonic() + 3600 * hours
    given_up: set[str] = set()
    for table in plan:
        for need in table.missing_needs():
            print(f"{table.name} is left out: it needs {need}", flush=True)
    waiting = [row for t in plan if not t.missing_needs() for row in rows_of(t)]
    while time.monotonic() < end:
        row = next((r for r in waiting if r.key not in given_up and _ready(r, waiting)), None)
        if row is None:
            break
        name = f"{row.table.name}: {' '.join(row.command())}"
        print(name, flush=True)
        try:
            done = make(row, min(ROW_SECONDS, max(1.0, end - time.monotonic())), nice)
            print("  done" if done else "  goes on later", flush=True)
        except Failed as fault:
            print(f"  failed: {fault}", flush=True)
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
