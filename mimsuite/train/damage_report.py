"""Corrupt samples of all ranks, told by the first: an event each, a warning for the first few."""

from __future__ import annotations

import json
from collections.abc import Callable

from mimsuite.cluster.peers import Peers
from mimsuite.data.damage import Damage

_NAMED = 5  # corrupt samples that are warned of one by one


class DamageReport:
    """What was found in this start of a run.

    Args:
        event: writes an event of a step with its fields.
    """

    def __init__(
        self, peers: Peers, event: Callable[..., None], warn: Callable[[str], None]
    ) -> None:
        self._peers, self._event, self._warn = peers, event, warn
        self._count = 0
        self._untold: list[Damage] = []  # for the first rank to report

    def add(self, damage: list[Damage], step: int) -> None:
        """Report what this rank found, or keep it until :meth:`collect`."""
        if not self._peers.first:
            self._untold += damage
            return
        for bad in damage:
            self._count += 1
            self._event(
                "bad_sample", step, key=bad.key, shard=bad.shard, kind=bad.kind, message=bad.message
            )
            if self._count <= _NAMED:
                self._warn(f"replaced {bad}")
            elif self._count == _NAMED + 1:
                self._warn("more samples are replaced: events.jsonl names all of them")

    def collect(self, step: int) -> None:
        """Report what the other ranks found since the last time; all ranks call it."""
        found, self._untold = self._untold, []
        own = json.dumps([vars(item) for item in found]) if found else ""
        told = self._peers.texts(own)
        for text in told if self._peers.first else ():
            self.add([Damage(**item) for item in json.loads(text or "[]")], step)

    def sum_up(self) -> None:
        """At the end of training."""
        if self._count:
            were = "sample was" if self._count == 1 else "samples were"
            self._warn(f"{self._count} corrupt {were} replaced by another; see events.jsonl")
