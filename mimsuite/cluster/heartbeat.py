"""Heartbeats: every second each rank reports its step, so that lost ranks can be named.

Heartbeats are kept in the ranks' store and read together, so detection takes the same few seconds
for two ranks and for hundreds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

BEAT_SECONDS = 1.0
_SILENT_SECONDS = 2.5  # a rank is silent when its last beat is this much older than the others'
_LOOK_SECONDS = 0.5

Beats = dict[int, "Beat"]


@dataclass(frozen=True)
class Beat:
    """The last heartbeat of a rank.

    Attributes:
        step: optimizer steps done.
        since: time at which the last step ended, in seconds of ``time.time()``.
        when: time of the heartbeat.
    """

    step: int
    since: float
    when: float

    def text(self) -> str:
        return f"{self.step} {self.since:.2f} {self.when:.2f}"

    @classmethod
    def read(cls, text: bytes) -> Beat:
        step, since, when = text.decode().split()
        return cls(int(step), float(since), float(when))


def listen(read: Callable[[], Beats]) -> tuple[Beats, set[int]]:
    """Beats of all ranks, and the silent ranks; takes up to a few seconds.

    Args:
        read: returns the beats of all ranks, including this one.
    """
    first = read()
    newest = max(beat.when for beat in first.values())
    silent = {rank for rank, beat in first.items() if newest - beat.when > _SILENT_SECONDS}
    if silent:
        return first, silent
    until = time.monotonic() + _SILENT_SECONDS
    beats, silent = first, set(first)
    while silent and time.monotonic() < until:
        time.sleep(_LOOK_SECONDS)
        beats = read()
        silent = {rank for rank in silent if beats[rank] == first[rank]}
    return beats, silent


def at_fault(beats: Beats, silent: set[int], rounds: Mapping[int, int], rank: int) -> Beats:
    """The ranks for which the others wait.

    These are the silent ranks. If none is silent, they are the ranks that do not wait in the same
    round as this rank; of those, the ones furthest behind, or at equal steps the one that has been
    at its step longest.

    Args:
        rounds: the round in which each rank last waited for others.
        rank: this rank, which is never at fault.
    """
    others = {other: beat for other, beat in beats.items() if other != rank}
    gone = {other: beat for other, beat in others.items() if other in silent}
    if gone:
        first = min(beat.when for beat in gone.values())  # later ones may have left because of it
        return {o: b for o, b in gone.items() if b.when - first <= BEAT_SECONDS}
    late = {other: b for other, b in others.items() if rounds[other] != rounds[rank]} or others
    last = min(beat.step for beat in late.values())
    late = {other: beat for other, beat in late.items() if beat.step == last}
    if len(late) == len(others) > 1:
        stuck = min(late, key=lambda other: late[other].since)
        late = {stuck: late[stuck]}
    return late
