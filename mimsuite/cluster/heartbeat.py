"""Who was lost: each rank says every second that it lives, and where it is.

What ranks say is kept in the store of the ranks and read at once, so that it takes the same few
seconds for two ranks and for hundreds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

BEAT_SECONDS = 1.0
_SILENT_SECONDS = 2.5  # behind the others, or without a word
_LOOK_SECONDS = 0.5

Beats = dict[int, "Beat"]


@dataclass(frozen=True)
class Beat:
    """What a rank said last.

    Attributes:
        step: optimizer steps that it has done.
        since: when it had done the last of them, seconds of ``time.time()``.
        when: it said this.
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
    """Beats of all ranks, and which of these are silent: known at once, or after some seconds.

    Args:
        read: the beats of all ranks, this one's own among them.
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
    """The ranks that keep the others waiting, by what ranks said.

    The silent ones; else those that do not wait in the round in which this rank waits; of these
    the furthest behind, and where none is, the one that has been there longest.

    Args:
        rounds: the round in which each rank last waited for others.
        rank: this one, which is never at fault.
    """
    others = {other: beat for other, beat in beats.items() if other != rank}
    gone = {other: beat for other, beat in others.items() if other in silent}
    if gone:
        first = min(beat.when for beat in gone.values())  # the rest may have left because of it
        return {o: b for o, b in gone.items() if b.when - first <= BEAT_SECONDS}
    late = {other: b for other, b in others.items() if rounds[other] != rounds[rank]} or others
    last = min(beat.step for beat in late.values())
    late = {other: beat for other, beat in late.items() if beat.step == last}
    if len(late) == len(others) > 1:
        stuck = min(late, key=lambda other: late[other].since)
        late = {stuck: late[stuck]}
    return late
