"""The same work on many shards, in one process or several, results in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

from mimsuite.data.workers import start_worker
from mimsuite.errors import DataError

Job = TypeVar("Job")
Result = TypeVar("Result")


def each(work: Callable[[Job], Result], jobs: Sequence[Job], workers: int) -> Iterator[Result]:
    """``work(job)`` for every job; ``workers`` of 0 or 1 stays in this process."""
    if workers <= 1 or len(jobs) <= 1:
        yield from map(work, jobs)
        return
    # Fresh processes: a fork would inherit torch's thread pools in an unknown state.
    with ProcessPoolExecutor(
        min(workers, len(jobs)), get_context("spawn"), start_worker, (0,)
    ) as pool:
        try:
            yield from pool.map(work, jobs)
        except BrokenProcessPool:
            raise DataError(
                "a worker process died; most often memory ran out: use fewer --workers"
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
