"""The thread that feeds training: in order, two ahead, its faults raised, ended with the loop."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from mimsuite.config.keys.shared import Recipe
from mimsuite.data import open_source, train_loader
from mimsuite.data.loading import train_loader as loading
from mimsuite.data.loading.ahead import Ahead
from mimsuite.data.source import Sample, Source
from mimsuite.errors import DataError, UserError


def feeds() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "feed"]


def settled(count: Callable[[], int], wanted: int) -> bool:
    deadline = time.monotonic() + 10
    while count() != wanted and time.monotonic() < deadline:
        time.sleep(0.01)
    return count() == wanted


def test_some_are_made_ahead_and_no_more() -> None:
    made: list[int] = []
    numbers = itertools.count()

    def make() -> int:
        made.append(next(numbers))
        return made[-1]

    ahead = Ahead(make, 2)
    assert settled(lambda: len(made), 2)
    assert [ahead.take() for _ in range(5)] == [0, 1, 2, 3, 4]
    assert settled(lambda: len(made), 7)
    assert ahead.close(10)
    assert len(made) == 7
    assert feeds() == []


def test_a_fault_comes_in_its_turn_and_again() -> None:
    numbers = iter([1, 2])

    def make() -> int:
        try:
            return next(numbers)
        except StopIteration:
            raise UserError("no more") from None

    ahead = Ahead(make, 2)
    assert [ahead.take(), ahead.take()] == [1, 2]
    for _ in range(2):
        with pytest.raises(UserError, match="no more"):
            ahead.take()
    assert ahead.close(10)


def test_closing_tells_of_a_call_that_does_not_return() -> None:
    go_on = threading.Event()
    ahead = Ahead(go_on.wait, 2)
    assert not ahead.close(0.05)
    go_on.set()
    assert ahead.close(10)


@pytest.mark.parametrize("how", ["with", "break", "again", "fault"])
def test_leaving_the_loop_ends_thread_and_workers(
    how: str, make_folder: Callable[..., Path], make_recipe: Callable[..., Recipe]
) -> None:
    source = open_source(str(make_folder(16)))
    loader = train_loader(source, make_recipe(data={"workers": 1}))
    stream = iter(loader)
    first = next(stream)
    assert len(feeds()) == 1
    workers = list(loader._parts._workers)  # type: ignore[union-attr]
    if how == "with":
        with loader:
            pass
    elif how == "break":
        stream.close()
    elif how == "fault":
        with pytest.raises(KeyError):
            stream.throw(KeyError())
    else:
        with loader:
            anew = iter(loader)
            again = next(anew)
            assert torch.equal(again.batch.image, first.batch.image)
            assert len(feeds()) == 1
    assert feeds() == []
    assert settled(lambda: sum(worker.is_alive() for worker in workers), 0)


def test_without_workers_there_is_no_thread(
    make_folder: Callable[..., Path], make_recipe: Callable[..., Recipe]
) -> None:
    with train_loader(open_source(str(make_folder(16))), make_recipe()) as loader:
        loaded = next(iter(loader))
        assert feeds() == []
    assert loaded.moved is loaded.batch


def test_a_dead_worker_is_told_in_one_line(
    make_folder: Callable[..., Path], make_recipe: Callable[..., Recipe]
) -> None:
    loader = train_loader(open_source(str(make_folder(16))), make_recipe(data={"workers": 1}))
    with loader:
        stream = iter(loader)
        next(stream)
        os.kill(loader._parts._workers[0].pid, signal.SIGKILL)  # type: ignore[union-attr]
        with pytest.raises(DataError, match="a loader worker died"):
            list(islice(stream, 1000))
    assert feeds() == []


@pytest.mark.parametrize(
    ("fault", "died"),
    [
        (RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"), True),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), True),
        (ConnectionResetError(104, "Connection reset by peer"), True),  # passing a batch's memory
        (ConnectionRefusedError(111, "Connection refused"), True),
        (EOFError(), True),
        (RuntimeError("shapes differ"), False),
        (RuntimeError("Caught RuntimeError in DataLoader worker process 0.\n..."), False),
        (FileNotFoundError("Caught FileNotFoundError in DataLoader worker process 0.\n..."), False),
    ],
    ids=repr,
)
def test_how_a_dead_worker_shows(fault: Exception, died: bool) -> None:
    def take() -> Any:
        raise fault

    with pytest.raises(DataError if died else type(fault), match="worker died" if died else None):
        loading._next(take)


def test_a_worker_that_hangs_is_not_waited_for(
    make_folder: Callable[..., Path],
    make_recipe: Callable[..., Recipe],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is deaf to the usual signals, and inside a read it sees no other sign."""
    monkeypatch.setattr(loading, "_PATIENCE", 0.3)
    source = open_source(str(make_folder(16)))
    read = type(source).read
    reads = itertools.count()

    def stuck(self: Source, shard: int, offset: int) -> Sample:
        if next(reads) >= 8:  # after the first batch
            time.sleep(1000)
        return read(self, shard, offset)

    monkeypatch.setattr(type(source), "read", stuck)
    with train_loader(source, make_recipe(data={"workers": 1})) as loader:
        stream = iter(loader)
        assert len(next(stream).batch) == 8
        workers = list(loader._parts._workers)  # type: ignore[union-attr]
        begun = time.monotonic()
    assert time.monotonic() - begun < 20
    assert settled(lambda: sum(worker.is_alive() for worker in workers), 0)
