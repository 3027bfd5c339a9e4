"""Ranks agree without waiting for each other in each step, in teams where they are many."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import pytest
import torch

from mimsuite.cluster import group
from mimsuite.cluster.heartbeat import Beat, at_fault, listen
from mimsuite.cluster.teams import open_files, team_size
from mimsuite.files import allow_many_files

VOTES = Path(__file__).with_name("votes.py")


@pytest.mark.parametrize("world", [4, pytest.param(18, marks=pytest.mark.slow)])
def test_what_ranks_say_reaches_all(ranks, world):
    codes, said = ranks.call(f"{VOTES}:agree", ranks=world)
    assert codes == [0] * world, said


@pytest.mark.slow
def test_a_vote_does_not_hold_up_the_host(ranks, tmp_path):
    out = tmp_path / "out"
    codes, said = ranks.call(f"{VOTES}:cast", str(out), ranks=32)
    assert codes == [0] * 32, said
    middle, _, files = map(float, out.read_text().split())
    assert middle <= 0.5  # ms; 9.7 when each step waited for its own vote in one ring
    assert files < 150


def test_many_ranks_keep_few_files_open():
    assert team_size(8) == 8
    assert open_files(8) == 10
    assert max(map(open_files, range(1, 513))) == open_files(512) < 60
    assert open_files(4096) < 300


def test_files_are_allowed_up_to_the_limit_of_the_system():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 1024), hard))
    try:
        allow_many_files()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (min(hard, 65_536), hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def beats(world: int, **odd: Beat) -> dict[int, Beat]:
    found = {rank: Beat(9, 100.0, 110.0) for rank in range(world)}
    return found | {int(name[1:]): beat for name, beat in odd.items()}


def test_a_silent_rank_among_hundreds_is_named_at_once():
    begun = time.monotonic()
    said = beats(512, r77=Beat(9, 100.0, 101.0))
    found, silent = listen(lambda: said)
    assert time.monotonic() - begun < 0.5
    assert silent == {77}
    assert list(at_fault(found, silent, dict.fromkeys(range(512), 1), 3)) == [77]


def test_a_rank_that_has_just_died_is_named_after_some_seconds():
    count = iter(range(100))

    def read() -> dict[int, Beat]:
        now = next(count) / 2
        return {n: Beat(9, 100.0, 110.0 if n == 1 else 110.0 + now) for n in range(4)}

    found, silent = listen(read)
    assert silent == {1}
    assert list(at_fault(found, silent, dict.fromkeys(range(4), 1), 0)) == [1]


@pytest.mark.parametrize(
    ("said", "rounds", "wanted"),
    [
        (beats(4), {0: 7, 1: 7, 2: 6, 3: 7}, [2]),  # lives, and does not wait
        (beats(4, r3=Beat(8, 99.0, 110.0)), dict.fromkeys(range(4), 7), [3]),  # is behind
        (beats(4, r1=Beat(9, 98.0, 110.0)), dict.fromkeys(range(4), 7), [1]),  # is there longest
    ],
)
def test_of_living_ranks_the_one_that_holds_up_the_others_is_named(said, rounds, wanted):
    assert list(at_fault(said, set(), rounds, 0)) == wanted


def test_ranks_that_left_after_the_lost_one_are_not_named():
    said = beats(4, r1=Beat(9, 100.0, 103.0), r2=Beat(9, 100.0, 107.0))
    assert list(at_fault(said, {1, 2}, dict.fromkeys(range(4), 7), 0)) == [1]


@pytest.mark.parametrize(("kind", "seconds"), [("cuda", 660), ("cpu", 300)])
def test_nccl_waits_longer_than_votes(kind, seconds):
    assert group.device_seconds(300.0, torch.device(kind)) == seconds
