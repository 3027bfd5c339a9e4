"""Run jobs in one process or several, with results in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, TypeVar

from mimsuite.data.workers import start_worker
from mimsuite.errors import DataError

Job = TypeVar("Job")
Result = TypeVar("Result")
_LOOK_SECONDS = 0.2  # interval between reads of the workers' progress

_advance: Callable[[int], None] | None = None


def advance(samples: int = 1) -> None:
    """Count finished samples; called by the work that :func:`each` runs."""
    if _advance is not None:
        _advance(samples)


def each(
    work: Callable[[Job], Result],
    jobs: Sequence[Job],
    workers: int,
    advanced: Callable[[int], None] = lambda samples: None,
) -> Iterator[Result]:
    """Yield ``work(job)`` for every job; ``workers`` of 0 or 1 runs in this process.

    Args:
        advanced: called with the samples that :func:`advance` counted since the last call.

    Raises:
        DataError: a process died.
    """
    if workers <= 1 or len(jobs) <= 1:
        yield from _here(work, jobs, advanced)
        return
    # Spawn: a fork would inherit torch's thread pools in an undefined state.
    context = get_context("spawn")
    counter = context.Value("q", 0)
    pool = ProcessPoolExecutor(min(workers, len(jobs)), context, _start, (counter,))
    try:
        futures = [pool.submit(work, job) for job in jobs]
        reported = 0
        for future in futures:
            while not future.done():
                wait([future], _LOOK_SECONDS, FIRST_COMPLETED)
                reported = _report(counter, reported, advanced)
            reported = _report(counter, reported, advanced)
            yield _result(future)
        pool.shutdown()
    except BaseException:
        _end(pool)
        raise


def _here(
    work: Callable[[Job], Result], jobs: Sequence[Job], advanced: Callable[[int], None]
) -> Iterator[Result]:
    global _advance
    outer, _advance = _advance, advanced
    try:
        yield from map(work, jobs)
    finally:
        _advance = outer


def _start(counter: Any) -> None:
    global _advance
    start_worker(0)

    def count(samples: int) -> None:
        with counter.get_lock():
            counter.value += samples

    _advance = count


def _report(counter: Any, reported: int, advanced: Callable[[int], None]) -> int:
    now = int(counter.value)
    if now > reported:
        advanced(now - reported)
    return now


def _result(future: Future[Result]) -> Result:
    try:
        return future.result()
    except BrokenProcessPool:
        raise DataError(
            "a worker process died; most often memory ran out: use fewer --workers"
        ) from None


def _end(pool: ProcessPoolExecutor) -> None:
    """Kill the processes: they ignore Ctrl-C, and a shard may take minutes to finish."""
    processes = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.kill()
