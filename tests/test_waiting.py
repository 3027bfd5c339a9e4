"""Whoever waits says for whom, and goes on saying it; who is quick says nothing."""

from __future__ import annotations

import fcntl
import itertools
import os
import threading
import time

import pytest

from mimsuite import waiting as module
from mimsuite.data.stores.shard_cache import _locked
from mimsuite.waiting import waiting


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(module, "FIRST_SECONDS", 0.2)
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.05)


def until(caplog, count: int) -> list[str]:
    deadline = time.monotonic() + 20
    while len(caplog.messages) < count and time.monotonic() < deadline:
        time.sleep(0.02)
    return caplog.messages


def test_a_wait_is_told_again_and_again_until_it_ends(quick, caplog):
    with waiting("a slow friend"):
        lines = until(caplog, 3)
    assert len(lines) >= 3
    assert all(line.startswith("waiting for a slow friend (") for line in lines)
    count = len(lines)
    time.sleep(1.0)
    assert len(caplog.messages) == count


def test_intervals_grow_up_to_a_limit(caplog):
    wait = module.waiting("X")
    for seconds in range(0, 3000, 5):
        module._look(wait, seconds)
    told = [int(line.split("(")[1].split()[0]) for line in caplog.messages]
    assert told[:5] == [10, 20, 40, 80, 160]
    assert max(b - a for a, b in itertools.pairwise(told)) == module.LONGEST_SECONDS
    assert told[0] <= 20


@pytest.mark.parametrize("whom", ["", RuntimeError("the store has gone")])
def test_what_cannot_be_said_is_not_and_others_still_speak(quick, caplog, whom):
    def ask() -> str:
        if isinstance(whom, Exception):
            raise whom
        return whom

    with waiting(ask), waiting("another"):
        lines = until(caplog, 2)
    assert {line.split(" (")[0] for line in lines} == {"waiting for another"}


def test_short_waits_are_silent_and_cheap(caplog):
    begun = time.perf_counter()
    for _ in range(10_000):
        with waiting("nobody"):
            pass
    assert time.perf_counter() - begun < 1.0  # 0.1 ms each would not be noticed in a step
    assert caplog.messages == []
    assert module._waits == set()


def test_a_fork_watches_its_own_waits(quick):
    reading, writing = os.pipe()
    with waiting("the parent's"):
        pid = os.fork()
        if pid == 0:
            said: list[str] = []
            module._log.warning = lambda text, *words: said.append(text % words)  # type: ignore
            with waiting("the child's"):
                time.sleep(1)
            os.write(writing, " ".join(said).encode())
            os._exit(0)
        os.waitpid(pid, 0)
    said = os.read(reading, 4096).decode()
    assert "the child's" in said
    assert "the parent's" not in said


def test_the_lock_of_a_shard_cache_says_what_it_waits_for(quick, caplog, tmp_path):
    path = tmp_path / "00000.tar.part"
    holder = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(holder, fcntl.LOCK_EX)
    got = threading.Event()

    def take() -> None:
        with _locked(path):
            got.set()

    threading.Thread(target=take).start()
    lines = until(caplog, 1)
    os.close(holder)
    assert got.wait(10)
    assert "waiting for another process that fetches 00000.tar.part" in lines[0]
