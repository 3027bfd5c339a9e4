"""Small messages (flags and texts) between all ranks on the CPU, in teams of about sqrt(world).

gloo connects every pair of group members and passes a message around a ring. In one group of 512
ranks a message takes a thousand hops, and each process needs as many open files as many systems
allow. Here neighbouring ranks form a team, and the first ranks of the teams, the leaders, form
another: 512 ranks need 86 hops and about 50 files. A message passes through the team, then through
the leaders, then from each leader to its team.

Letters: W ranks, T ranks per team.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

_SMALL_WORLD = 16  # up to this many ranks, one ring is equally fast
_OWN_FILES = 3  # open files of a gloo group, beside one for each other member


def team_size(world: int) -> int:
    """Ranks per team; the last team may have fewer."""
    return world if world <= _SMALL_WORLD else math.ceil(math.sqrt(world))


def open_files(world: int) -> int:
    """Largest number of files that a rank keeps open for its teams."""
    size = team_size(world)
    leaders = math.ceil(world / size)
    groups = [members for members in (size, leaders) if members > 1]
    return sum(members - 1 + _OWN_FILES for members in groups)


class Teams:
    """The teams of this rank. All ranks create it together and make the same calls in order.

    Args:
        patience: how long a call waits for other ranks.
    """

    def __init__(self, rank: int, world: int, patience: timedelta) -> None:
        size = team_size(world)
        self.rank, self.world, self.size = rank, world, size
        self.leader = rank // size * size
        self._team = _group(range(self.leader, min(self.leader + size, world)), patience)
        leaders = range(0, world, size)
        self._leaders = _group(leaders, patience) if rank == self.leader else None
        self._several = len(leaders) > 1
        self.patience = patience

    def set_patience(self, patience: timedelta) -> None:
        """Set how long calls wait for other ranks."""
        for group in (self._team, self._leaders):
            if group is not None:
                set_timeout(patience, group)
        self.patience = patience

    @contextmanager
    def patient(self, patience: timedelta) -> Iterator[None]:
        """Context in which calls wait longer."""
        usual = self.patience
        self.set_patience(patience)
        try:
            yield
        finally:
            self.set_patience(usual)

    def any(self, flags: Sequence[bool]) -> tuple[bool, ...]:
        """For each flag, whether it is set on any rank."""
        votes = torch.tensor(flags, dtype=torch.int32)
        for group in (self._team, self._leaders):
            if group is not None:
                dist.all_reduce(votes, op=dist.ReduceOp.MAX, group=group)
        if self._several and self._team is not None:
            dist.broadcast(votes, self.leader, group=self._team)
        return tuple(bool(vote) for vote in votes)

    def gather(self, data: bytes) -> list[bytes]:
        """The bytes of every rank, on every rank."""
        found = _gathered(data, self._team)
        if not self._several:
            return found
        if self.rank == self.leader:
            parts = _gathered(_pack(found), self._leaders)
            found = [one for part in parts for one in _unpack(part)]
        return _unpack(_from_leader(_pack(found), self.leader, self._team))

    def collect(self, tensor: Tensor) -> list[Tensor] | None:
        """The CPU tensors of all ranks, of equal shape, on the first rank; others get ``None``."""
        found = _collected(tensor, self.leader, self._team)
        if found is None or not self._several:
            return found
        rows = torch.stack([*found, *[tensor] * (self.size - len(found))])  # (T, ...)
        teams = _collected(rows, 0, self._leaders)
        return None if teams is None else list(torch.cat(teams)[: self.world])


def set_timeout(patience: timedelta, group: dist.ProcessGroup) -> None:
    """Set how long a group's calls wait; torch has a public function from 2.14 on."""
    if hasattr(dist, "set_timeout"):
        dist.set_timeout(patience, group)
    else:
        dist.distributed_c10d._set_pg_timeout(patience, group)


def _group(ranks: range, patience: timedelta) -> dist.ProcessGroup | None:
    """A gloo group, created by its members only; None for a single member."""
    if len(ranks) == 1:
        return None
    group = dist.new_group(
        list(ranks), backend="gloo", timeout=patience, use_local_synchronization=True
    )
    assert isinstance(group, dist.ProcessGroup)
    return group


def _gathered(data: bytes, group: dist.ProcessGroup | None) -> list[bytes]:
    if group is None:
        return [data]
    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(group.size())]
    dist.all_gather(sizes, torch.tensor([len(data)]), group=group)
    longest = max(int(size) for size in sizes)
    if longest == 0:
        return [b""] * len(sizes)
    found = [torch.zeros(longest, dtype=torch.uint8) for _ in sizes]
    dist.all_gather(found, _tensor(data.ljust(longest, b"\0")), group=group)
    pairs = zip(found, sizes, strict=True)
    return [one[: int(size)].numpy().tobytes() for one, size in pairs]


def _from_leader(data: bytes, leader: int, group: dist.ProcessGroup | None) -> bytes:
    if group is None:
        return data
    size = torch.tensor([len(data)])
    dist.broadcast(size, leader, group=group)
    found = _tensor(data.ljust(int(size), b"\0")[: int(size)])
    dist.broadcast(found, leader, group=group)
    return found.numpy().tobytes()


def _collected(tensor: Tensor, to: int, group: dist.ProcessGroup | None) -> list[Tensor] | None:
    if group is None:
        return [tensor]
    here = dist.get_rank() == to
    found = [torch.empty_like(tensor) for _ in range(group.size())] if here else None
    dist.gather(tensor.contiguous(), found, dst=to, group=group)
    return found


def _tensor(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _pack(parts: Sequence[bytes]) -> bytes:
    head = struct.pack(f"<{1 + len(parts)}q", len(parts), *map(len, parts))
    return head + b"".join(parts)


def _unpack(data: bytes) -> list[bytes]:
    (count,) = struct.unpack_from("<q", data)
    parts, at = [], 8 * (1 + count)
    for size in struct.unpack_from(f"<{count}q", data, 8):
        parts.append(data[at : at + size])
        at += size
    return parts
