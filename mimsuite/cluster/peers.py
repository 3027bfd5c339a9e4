"""What ranks do together: means, votes, gathering, and one rank's work whose failure all share.

Methods and probes never see this; the trainer does. Tensors go through the device's backend (nccl
or gloo); votes and texts through gloo, on the host, so that a GPU is never waited for. The vote of
a step is counted in the background, and its outcome is known to all ranks at the next step.
"""

from __future__ import annotations

import atexit
import itertools
import json
import logging
import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from datetime import timedelta

import torch
import torch.distributed as dist
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather, all_reduce

from mimsuite.cluster.alike import compare, facts_of
from mimsuite.cluster.background import Background
from mimsuite.cluster.heartbeat import BEAT_SECONDS, Beat, at_fault, listen
from mimsuite.cluster.place import Place
from mimsuite.cluster.replica import Copied, Replica, Sharded
from mimsuite.cluster.teams import Teams, set_timeout
from mimsuite.errors import MimsuiteError
from mimsuite.waiting import waiting

_log = logging.getLogger(__name__)

_START_SECONDS = 600  # importing and building takes ranks very different times
_PATIENCE_SECONDS = 3600  # while one rank works for all: a slow disk must not end a run
_STORE_SECONDS = 5  # for a word with the store, when something is wrong already
_SPEAK_SECONDS = 5  # that the main thread has to name a lost rank itself
_FILES = 65_536  # open at once, where the system allows it
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

    @property
    def vote_lag(self) -> int:
        """How many votes late :meth:`vote` tells the outcome."""
        return 0

    def vote(self, *flags: bool, now: bool = False) -> tuple[bool, ...]:
        """As :meth:`any`, without waiting: several ranks learn the outcome in the next vote.

        Args:
            now: wait, for the last vote; the outcome is that of the one before, too.
        """
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

    def steps_begin(self) -> None:
        """From now on nothing takes longer than ``train.timeout_seconds``; before, ranks read
        and compile for very different times."""

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
    """Several processes. Made by :func:`join`, once for a process."""

    def __init__(self, place: Place, device: torch.device) -> None:
        self.rank, self.world, self.device = place.rank, place.world, device
        self.seconds = self._step_seconds = float(_START_SECONDS)
        self._store = dist.distributed_c10d._get_default_store()
        self._doing, self._round = "start", 0
        self._step, self._since = 0, time.time()
        self.lost = False  # touch with another rank
        self._vote: Future[tuple[bool, ...]] | None = None
        self._outcome: tuple[bool, ...] = ()
        self._store.set(f"waits/{self.rank}", "0")
        self._beat()
        with waiting("the other ranks, to connect with them"):
            self._teams = Teams(self.rank, self.world, timedelta(seconds=_START_SECONDS))
            self._teams.any([False])  # all have put their first words into the store
        self._votes, self._reader = Background("votes"), Background("peers")
        threading.Thread(target=self._keep_beating, daemon=True, name="heart").start()

    def start(self, seconds: float) -> None:
        """Before a run.

        Args:
            seconds: how long this rank will wait for the others in a step.
        """
        self._step_seconds = seconds
        self._wait_for(max(seconds, _START_SECONDS))

    def steps_begin(self) -> None:
        if self.seconds != self._step_seconds:
            self._settle()
            self._wait_for(self._step_seconds)

    def _wait_for(self, seconds: float) -> None:
        """How long this rank waits for the others, from now on."""
        self.seconds = seconds
        self._teams.set_patience(timedelta(seconds=seconds))
        world = dist.group.WORLD
        assert world is not None
        set_timeout(timedelta(seconds=_device_seconds(seconds, self.device)), world)

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
        with self._together("gathering of rows"):
            found = self._teams.collect(padded)
        if found is None:
            return None
        return torch.cat([rows[:count] for rows, count in zip(found, counts, strict=True)])

    def any(self, *flags: bool) -> tuple[bool, ...]:
        self._settle()
        with self._together("vote"):
            outcome = self._teams.any(flags)
        self._doing = "step"  # what follows a vote, with the reductions of its gradients
        return outcome

    @property
    def vote_lag(self) -> int:
        return 1

    def vote(self, *flags: bool, now: bool = False) -> tuple[bool, ...]:
        self._settle()
        before = self._outcome or (False,) * len(flags)
        self._outcome = ()
        if now:
            outcome = self.any(*flags)
            return tuple(one or other for one, other in zip(before, outcome, strict=True))
        self._vote = self._votes.do(lambda: self._count(flags))
        self._doing = "step"
        return before

    def texts(self, text: str, *, patient: bool = False) -> list[str]:
        return [data.decode() for data in self._bytes(text.encode(), patient)]

    def tensors(self, tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        own = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        return [load_tensors(data) for data in self._bytes(dump_tensors(own))]

    def on_first(self, work: Callable[[], None]) -> None:
        fault: Exception | None = None
        report = ""
        self._settle()
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
        self._step, self._since = step, time.time()

    @contextmanager
    def named_faults(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # of torch.distributed: its text names no rank
            if isinstance(error, torch.OutOfMemoryError) or not _is_of_peers(error):
                raise
            self.lost = True
            raise PeerError(self._who()) from error

    def _bytes(self, data: bytes, patient: bool = False) -> list[bytes]:
        self._settle()
        seconds = max(self.seconds, _PATIENCE_SECONDS) if patient else self.seconds
        with (
            self._teams.patient(timedelta(seconds=seconds)),
            self._together("wait for another rank" if patient else "gathering of texts"),
        ):
            return self._teams.gather(data)

    # --- votes in the background ---

    def _count(self, flags: Sequence[bool]) -> tuple[bool, ...]:
        """In the thread of votes. It speaks where the main thread cannot, since it waits for the
        device, which waits for a lost rank."""
        try:
            return self._teams.any(flags)
        except RuntimeError:
            speaks = threading.Timer(_SPEAK_SECONDS, self._speak)
            speaks.daemon = True
            speaks.start()
            raise

    def _speak(self) -> None:
        if not self.lost:
            _log.warning("%s", self._who())

    def _settle(self) -> None:
        """Wait for the vote on its way: calls of teams have the same order on all ranks."""
        if self._vote is None:
            return
        with self._together("vote"):
            self._outcome = self._vote.result()
        self._vote = None

    # --- who keeps the others waiting ---

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
        rounds = {**self._rounds_of_all(), self.rank: number}
        here = {rank for rank, there in rounds.items() if there == number}
        if min(here) < self.rank:
            return ""
        late = [rank for rank in range(self.world) if rank not in here]
        return f"{_ranks(late)} in the {self._doing}" if late else f"the network: the {self._doing}"

    def _rounds_of_all(self) -> dict[int, int]:
        said = self._store.multi_get([f"waits/{rank}" for rank in range(self.world)])
        return {rank: int(text) for rank, text in enumerate(said)}

    def _limit(self) -> str:
        if self.seconds == self._step_seconds:
            return f"train.timeout_seconds={self.seconds:g}"
        return f"{self.seconds:g} s until the first step is done"

    def _keep_beating(self) -> None:
        with suppress(Exception):  # the store has gone, and its rank with it
            while True:
                time.sleep(BEAT_SECONDS)
                self._beat()

    def _beat(self) -> None:
        beat = Beat(self._step, self._since, time.time())
        self._store.set(f"at/{self.rank}", beat.text())

    def _beats(self) -> dict[int, Beat]:
        said = self._store.multi_get([f"at/{rank}" for rank in range(self.world)])
        return {rank: Beat.read(text) for rank, text in enumerate(said)}

    def _who(self) -> str:
        """Which ranks were lost, in a few seconds however many there are."""
        rounds = {self.rank: self._round}
        try:
            beats, silent = self._reader.do(lambda: listen(self._beats)).result(_STORE_SECONDS)
            rounds = self._reader.do(self._rounds_of_all).result(_STORE_SECONDS) | rounds
        except Exception:  # the store is with rank 0
            names = "rank 0, which does not answer,"
        else:
            names = ", ".join(
                f"rank {rank} (last heard of {_ago(beat.when)}, at step {beat.step})"
                for rank, beat in sorted(at_fault(beats, silent, rounds, self.rank).items())
            )
        return (
            f"rank {self.rank} lost touch with {names} during the {self._doing}; the limit is "
            f"{self._limit()}. Look at that rank's log"
        )


_joined: Group | None = None


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
    global _joined
    if _joined is None or not dist.is_initialized():
        _meet(place, device, stopped, {**facts_of(device), **(facts or {})})
        _joined = Group(place, device)
    _joined.start(seconds)
    return _joined


def met() -> bool:
    """Whether this process is connected to others."""
    return dist.is_initialized()


def _meet(
    place: Place, device: torch.device, stopped: Callable[[], None], facts: Mapping[str, str]
) -> None:
    """Connect the processes, once for all that they will train."""
    _allow_many_files()
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
    atexit.register(_part)


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


def _device_seconds(seconds: float, device: torch.device) -> float:
    """Patience of the device's backend. NCCL ends the process when it loses it, and is to leave
    time for naming the lost rank."""
    return 2 * seconds + 60 if device.type == "cuda" else seconds


def _allow_many_files() -> None:
    """Connections are open files; what a system gives at first is often 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _part() -> None:
    """At the end of the process. Connections with a lost rank are not ended but dropped: their end
    would wait for it."""
    if _joined is None or not _joined.lost:
        dist.destroy_process_group()
        return
    if _joined.device.type == "cuda":  # or its kernels keep the device
        aborts = threading.Thread(target=dist.distributed_c10d._abort_process_group, daemon=True)
        aborts.start()
        aborts.join(_STORE_SECONDS)


def _is_of_peers(error: RuntimeError) -> bool:
    text = str(error)
    words = ("gloo", "NCCL", "nccl", "timed out", "Timed out", "onnection", "Broken pipe", "peer")
    return isinstance(error, dist.DistError) or any(word in text for word in words)


def _ago(when: float) -> str:
    return f"{max(0.0, time.time() - when):.0f} s ago" if when else "never"
