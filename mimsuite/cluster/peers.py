"""What ranks do together: means, votes, gathering, and one rank's work whose failure all share.

Methods and probes never see this; the trainer does. Tensors go through the device's backend (nccl
or gloo); votes and texts through a gloo group of their own, so that a GPU is never waited for.
"""

from __future__ import annotations

import atexit
import itertools
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather, all_reduce

from mimsuite.cluster.alike import compare, facts_of
from mimsuite.cluster.place import Place
from mimsuite.cluster.replica import Copied, Replica, Sharded
from mimsuite.errors import MimsuiteError
from mimsuite.waiting import waiting

_START_SECONDS = 600  # importing and building takes ranks very different times
_PATIENCE_SECONDS = 3600  # while one rank works for all: a slow disk must not end a run
_STORE_SECONDS = 5  # for a word with the store, when something is wrong already
_LOOK_SECONDS = 0.1  # between two looks at who has come
_rounds = itertools.count(1)  # of what ranks do together, numbered alike on all of them


class Peers:
    """A single process, which agrees with itself. :class:`Group` is the same for several."""

    rank, world = 0, 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def replicate(
        self, method: nn.Module, units: Sequence[nn.Module] = (), parallel: str = "ddp"
    ) -> Replica:
        """The forward pass that shares gradients.

        Args:
            units: modules of the method whose weights ``fsdp`` puts together one at a time.
            parallel: ``ddp`` or ``fsdp``; a single process needs neither.
        """
        return Replica(method)

    def mean(self, values: Tensor) -> Tensor:
        """Mean over ranks, elementwise; no gradient."""
        return values

    def gather(self, tensor: Tensor) -> Tensor:
        """(B, ...) of every rank -> (world B, ...), in the order of ranks, with gradient."""
        return tensor

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum over ranks, elementwise, with gradient."""
        return tensor

    def rows(self, tensor: Tensor) -> Tensor | None:
        """(N, ...) rows of every rank, on the CPU -> all of them in the order of ranks.

        N may differ between ranks. The first rank has the result, the others ``None``.
        """
        return tensor

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag, whether it is set on some rank."""
        return flags

    def texts(self, text: str, *, patient: bool = False) -> list[str]:
        """The text of every rank, on every rank.

        Args:
            patient: wait for the others however long they take.
        """
        return [text]

    def tensors(self, tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """Small CPU tensors of every rank, same names and shapes, on every rank."""
        return [tensors]

    def on_first(self, work: Callable[[], None]) -> None:
        """Let the first rank do something; an error of it is raised on all ranks.

        However long it takes: ``train.timeout_seconds`` is for steps.
        """
        work()

    def at(self, step: int) -> None:
        """Say where this rank is, so that peers can name who is late."""

    @contextmanager
    def named_faults(self) -> Iterator[None]:
        """Around training: a lost or stopped peer becomes an error that names it."""
        yield


ALONE = Peers()


class PeerError(MimsuiteError):
    """Another rank failed, or does not answer. ``told`` where that rank says so itself."""

    def __init__(self, message: str, told: bool = False, exit_code: int = 1) -> None:
        super().__init__(message)
        self.told, self.exit_code = told, exit_code


class Group(Peers):
    """Several processes. Made by :func:`join`."""

    def __init__(self, place: Place, device: torch.device, seconds: float) -> None:
        self.rank, self.world, self.device = place.rank, place.world, device
        self.seconds = seconds
        patience = timedelta(seconds=seconds)
        with waiting("the other ranks, to connect with them"):
            self._control = _gloo(patience)
            self._patient = _gloo(max(patience, timedelta(seconds=_PATIENCE_SECONDS)))
        _set_timeout(patience)
        self._store = dist.distributed_c10d._get_default_store()
        self._doing, self._round = "start", 0

    def replicate(
        self, method: nn.Module, units: Sequence[nn.Module] = (), parallel: str = "ddp"
    ) -> Replica:
        with self._together("start of the model"):
            if parallel == "fsdp":
                return Sharded(method, units, self.device)
            return Copied(method, self.device)

    def mean(self, values: Tensor) -> Tensor:
        with self._together("mean of the loss"):
            dist.all_reduce(values, op=dist.ReduceOp.SUM)
        return values / self.world

    def gather(self, tensor: Tensor) -> Tensor:
        with self._together("all-gather"):
            return torch.cat(all_gather(tensor.contiguous()))

    def sum(self, tensor: Tensor) -> Tensor:
        with self._together("sum"):
            return all_reduce(tensor.contiguous())

    def rows(self, tensor: Tensor) -> Tensor | None:
        counts = [int(text) for text in self.texts(str(len(tensor)))]
        padded = tensor.new_zeros(max(counts), *tensor.shape[1:])
        padded[: len(tensor)] = tensor
        found = [torch.empty_like(padded) for _ in counts] if self.first else None
        with self._together("gathering of rows"):
            dist.gather(padded, found, group=self._control)
        if found is None:
            return None
        return torch.cat([rows[:count] for rows, count in zip(found, counts, strict=True)])

    def any(self, *flags: bool) -> tuple[bool, ...]:
        votes = torch.tensor(flags, dtype=torch.int32)
        with self._together("vote"):
            dist.all_reduce(votes, op=dist.ReduceOp.MAX, group=self._control)
        self._doing = "step"  # what follows a vote, with the reductions of its gradients
        return tuple(bool(vote) for vote in votes)

    def texts(self, text: str, *, patient: bool = False) -> list[str]:
        group = self._patient if patient else self._control
        data = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8) if text else None
        data = torch.zeros(0, dtype=torch.uint8) if data is None else data
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world)]
        with self._together("wait for another rank" if patient else "gathering of texts"):
            dist.all_gather(sizes, torch.tensor([len(data)]), group=group)
            longest = max(int(size) for size in sizes)
            if longest == 0:
                return [""] * self.world
            padded = torch.zeros(longest, dtype=torch.uint8)
            padded[: len(data)] = data
            found = [torch.zeros_like(padded) for _ in range(self.world)]
            dist.all_gather(found, padded, group=group)
        pairs = zip(found, sizes, strict=True)
        return [one[: int(size)].numpy().tobytes().decode() for one, size in pairs]

    def tensors(self, tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        gathered: list[dict[str, Tensor]] = [{} for _ in range(self.world)]
        with self._together("gathering of generator states"):
            for name, tensor in sorted(tensors.items()):
                found = [torch.empty_like(tensor, device="cpu") for _ in range(self.world)]
                dist.all_gather(found, tensor.cpu().contiguous(), group=self._control)
                for rank, one in enumerate(found):
                    gathered[rank][name] = one
        return gathered

    def on_first(self, work: Callable[[], None]) -> None:
        fault: Exception | None = None
        report = ""
        if self.first:
            try:
                work()
            except Exception as error:
                fault = error
                code = error.exit_code if isinstance(error, MimsuiteError) else 1
                report = json.dumps([code, f"{type(error).__name__}: {error}"])
        (report, *_) = self.texts(report, patient=True)
        if fault is not None:
            raise fault
        if report:
            code, message = json.loads(report)
            raise PeerError(f"rank 0: {message}", told=True, exit_code=code)

    def at(self, step: int) -> None:
        self._store.set(f"at/{self.rank}", f"{step} {time.time():.1f}")

    @contextmanager
    def named_faults(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # of torch.distributed: its text names no rank
            if isinstance(error, torch.OutOfMemoryError) or not _is_of_peers(error):
                raise
            raise PeerError(self._who()) from error

    def _together(self, doing: str) -> waiting:
        """Around what all ranks do at the same point: who keeps the others waiting is named."""
        self._doing = doing
        self._round = next(_rounds)
        return waiting(self._late, self._waits)

    def _waits(self) -> None:
        """Let the others know that this rank waits, and in which round."""
        self._store.set(f"waits/{self.rank}", str(self._round))

    def _late(self) -> str:
        """The ranks that do not wait in the same round; empty where a lower rank says it."""
        number = self._round
        here = {self.rank}
        for rank in range(self.world):
            key = f"waits/{rank}"
            if (
                rank != self.rank
                and self._store.check([key])
                and (int(self._store.get(key)) == number)
            ):
                here.add(rank)
        if min(here) < self.rank:
            return ""
        late = [rank for rank in range(self.world) if rank not in here]
        return f"{_ranks(late)} in the {self._doing}" if late else f"the network: the {self._doing}"

    def _who(self) -> str:
        """Which ranks are furthest behind, by what they last told the store."""
        seen: dict[int, tuple[int, float]] = {}
        self._store.set_timeout(timedelta(seconds=_STORE_SECONDS))
        for rank in set(range(self.world)) - {self.rank}:
            try:
                step, when = self._store.get(f"at/{rank}").decode().split()
                seen[rank] = (int(step), float(when))
            except Exception:
                seen[rank] = (-1, 0.0)
        last = min(seen.values())[0]
        late = [rank for rank, (step, _) in seen.items() if step == last]
        if len(late) == len(seen) > 1:  # none is behind: who was heard of first is stuck longest
            late = [min(seen, key=lambda rank: seen[rank][1])]
        names = ", ".join(
            f"rank {rank} (last heard of {_ago(seen[rank][1])}, at step {seen[rank][0]})"
            for rank in late
        )
        return (
            f"rank {self.rank} lost touch with {names} during the {self._doing}; the limit is "
            f"train.timeout_seconds={self.seconds:g}. Look at that rank's log"
        )


def join(
    place: Place,
    device: torch.device,
    seconds: float,
    stopped: Callable[[], None] = lambda: None,
    facts: Mapping[str, str] | None = None,
) -> Peers:
    """The peers of a run; processes that have met before stay connected.

    Args:
        seconds: how long a rank waits for the others in a step.
        stopped: raises where the process is to end; asked while others are waited for.
        facts: what else has to agree between ranks, by names for people.

    Raises:
        PeerError: not all ranks came.
        UserError: they do not fit together.
    """
    if place.world == 1:
        return ALONE
    if not dist.is_initialized():
        _meet(place, device, stopped, {**facts_of(device), **(facts or {})})
    return Group(place, device, seconds)


def met() -> bool:
    """Whether this process is connected to others."""
    return dist.is_initialized()


def _meet(
    place: Place, device: torch.device, stopped: Callable[[], None], facts: Mapping[str, str]
) -> None:
    """Connect the processes, once for all that they will train."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        store = _await_all(place, stopped, facts)
        with waiting("the other ranks, to connect with them"):
            dist.init_process_group(
                backend,
                store=dist.PrefixStore("group", store),
                rank=place.rank,
                world_size=place.world,
                timeout=timedelta(seconds=_START_SECONDS),
            )
    except (RuntimeError, ValueError, OSError) as error:
        first = str(error).splitlines()[0]
        raise PeerError(
            f"rank {place.rank} of {place.world} found no peers at {place.address}:{place.port} "
            f"({first}): were all ranks started, with the same MASTER_ADDR and MASTER_PORT?"
        ) from None
    atexit.register(dist.destroy_process_group)


def _await_all(place: Place, stopped: Callable[[], None], facts: Mapping[str, str]) -> dist.Store:
    """The store of the ranks, once all have come to it and fit together.

    Waits in Python and not in torch, which would be deaf to signals and could not say who lacks.
    """
    until = time.monotonic() + _START_SECONDS
    # torchrun's agent has a store there already.
    agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    serves = place.rank == 0 and not agent
    if not serves:
        _await_server(place, until, stopped)
    store: dist.Store = dist.TCPStore(
        place.address,
        place.port,
        place.world,
        is_master=serves,
        timeout=timedelta(seconds=_START_SECONDS),
        wait_for_workers=False,
        multi_tenant=True,
    )
    if agent:  # the store outlives a restart of the ranks
        store = dist.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
    store.set(f"here/{place.rank}", json.dumps(facts))
    store.add("here", 1)

    def missing() -> list[int]:
        return [rank for rank in range(place.world) if not store.check([f"here/{rank}"])]

    with waiting(lambda: "" if place.rank else f"{_ranks(missing())} of {place.world}"):
        while store.add("here", 0) < place.world:
            stopped()
            if time.monotonic() > until:
                raise RuntimeError(f"{_ranks(missing())} did not come in {_START_SECONDS} s")
            time.sleep(_LOOK_SECONDS)
    compare(store, place.world, serves)
    return store


def _await_server(place: Place, until: float, stopped: Callable[[], None]) -> None:
    """Until somebody listens where rank 0 is to be found.

    Raises:
        OSError: nobody did.
    """
    fault = ""
    with waiting(lambda: f"rank 0 at {place.address}:{place.port}{fault}"):
        while True:
            stopped()
            try:
                socket.create_connection((place.address, place.port), timeout=2).close()
                return
            except OSError as error:
                if time.monotonic() > until:
                    raise
                fault = f" ({error.strerror or error})"
            time.sleep(_LOOK_SECONDS)


def _ranks(numbers: Sequence[int]) -> str:
    """``rank 2, 3, 5-9``."""
    spans: list[tuple[int, int]] = []
    for number in numbers:
        if spans and spans[-1][1] == number - 1:
            spans[-1] = (spans[-1][0], number)
        else:
            spans.append((number, number))
    parts = [
        f"{first}"
        if first == last
        else f"{first}, {last}"
        if last == first + 1
        else f"{first}-{last}"
        for first, last in spans
    ]
    return f"rank {', '.join(parts)}"


def _gloo(patience: timedelta) -> dist.ProcessGroup:
    """A group of all ranks on the host."""
    group = dist.new_group(backend="gloo", timeout=patience)
    assert isinstance(group, dist.ProcessGroup)
    return group


def _set_timeout(patience: timedelta) -> None:
    """From the patience of the start to that of a step; public from torch 2.14 on."""
    if hasattr(dist, "set_timeout"):
        dist.set_timeout(patience, dist.group.WORLD)
    else:
        dist.distributed_c10d._set_pg_timeout(patience, dist.group.WORLD)


def _is_of_peers(error: RuntimeError) -> bool:
    text = str(error)
    words = ("gloo", "NCCL", "nccl", "timed out", "Timed out", "onnection", "Broken pipe", "peer")
    return isinstance(error, dist.DistError) or any(word in text for word in words)


def _ago(when: float) -> str:
    return f"{max(0.0, time.time() - when):.0f} s ago" if when else "never"
