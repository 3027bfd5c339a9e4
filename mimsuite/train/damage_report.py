"""Report of corrupt samples of all ranks by rank 0: one event for each, warnings for the first."""

from __future__ import annotations

import json
from collections.abc import Callable

from mimsuite.cluster.peers import Peers
from mimsuite.data.damage import Damage

_NAMED = 5  # corrupt samples that get a warning each


class DamageReport:
    """Corrupt samples found since this start of the run.

    Args:
        event: writes an event with its step and fields.
    """

    def __init__(
        self, peers: Peers, event: Callable[..., None], warn: Callable[[str], None]
    ) -> None:
        self._peers, self._event, self._warn = peers, event, warn
        self._known: set[tuple[str, str]] = set()  # by shard and key, of all ranks
        self._unreported: list[Damage] = []  # not yet reported to the first rank

    def add(self, damage: list[Damage], step: int) -> None:
        """Report this rank's corrupt samples, or keep them until :meth:`collect`."""
        if not self._peers.first:
            self._unreported += damage
            return
        for bad in damage:
            if (bad.shard, bad.key) in self._known:  # another rank reads it in another epoch
                continue
            self._known.add((bad.shard, bad.key))
            self._event(
                "bad_sample", step, key=bad.key, shard=bad.shard, kind=bad.kind, message=bad.message
            )
            if len(self._known) <= _NAMED:
                self._warn(f"replaced {bad}")
            elif len(self._known) == _NAMED + 1:
                self._warn("more samples are replaced: events.jsonl names all of them")

    def collect(self, step: int) -> None:
        """Report the other ranks' corrupt samples since the last call; all ranks must call it."""
        found, self._unreported = self._unreported, []
        own = json.dumps([vars(item) for item in found]) if found else ""
        told = self._peers.gather_texts(own)
        for text in told if self._peers.first else ():
            self.add([Damage(**item) for item in json.loads(text or "[]")], step)

    def sum_up(self) -> None:
        """Print a summary at the end of training."""
        if self._known:
            were = "sample was" if len(self._known) == 1 else "samples were"
            self._warn(f"{len(self._known)} corrupt {were} replaced by another; see events.jsonl")
