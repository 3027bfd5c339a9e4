"""Collective operations of ranks: means, votes, gathering, and work of rank 0 for all.

Tensors use the device's backend (nccl or gloo); votes and texts use gloo on the host, so that they
never wait for a GPU. The vote of a step is counted in the background; all ranks know its outcome at
the next step.
"""

from __future__ import annotations

import itertools
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from datetime import timedelta

import torch
import torch.distributed as dist
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather, all_reduce

from mimsuite.cluster.background import Background
from mimsuite.cluster.heartbeat import BEAT_SECONDS, Beat, at_fault, listen
from mimsuite.cluster.peers import PeerError, Peers, rank_names
from mimsuite.cluster.rank_info import RankInfo
from mimsuite.cluster.replica import DDPReplica, FSDPReplica, Replica
from mimsuite.cluster.teams import Teams, set_timeout
from mimsuite.errors import MimsuiteError
from mimsuite.waiting import waiting

_log = logging.getLogger(__name__)

START_SECONDS = 600  # start timeout: ranks differ much in the time to import and build
STORE_SECONDS = 5  # timeout of the store once a fault has occurred
_PATIENCE_SECONDS = 3600  # timeout of one rank's work for all: a slow disk must not end a run
_SPEAK_SECONDS = 5  # time that the main thread has to name a lost rank itself
_rounds = itertools.count(1)  # numbers of collective operations, equal on all ranks


class ProcessGroupPeers(Peers):
    """Several processes; :func:`~mimsuite.cluster.meeting.join` makes one instance per process."""

    def __init__(self, info: RankInfo, device: torch.device) -> None:
        self.rank, self.world, self.device = info.rank, info.world, device
        self.seconds = self._step_seconds = float(START_SECONDS)
        self._store = dist.distributed_c10d._get_default_store()
        self._doing, self._round = "start", 0
        self._step, self._since = 0, time.time()
        self.lost = False  # whether contact with another rank is lost
        self._vote: Future[tuple[bool, ...]] | None = None
        self._outcome: tuple[bool, ...] = ()
        self._store.set(f"waits/{self.rank}", "0")
        self._beat()
        with waiting("the other ranks, to connect with them"):
            self._teams = Teams(self.rank, self.world, timedelta(seconds=START_SECONDS))
            self._teams.any([False])  # all have written their first heartbeat to the store
        self._votes, self._reader = Background("votes"), Background("peers")
        threading.Thread(target=self._keep_beating, daemon=True, name="heart").start()

    def start(self, seconds: float) -> None:
        """Begin a run.

        Args:
            seconds: how long this rank will wait for the others in a step.
        """
        self._step_seconds = seconds
        self._wait_for(max(seconds, START_SECONDS))

    def steps_begin(self) -> None:
        if self.seconds != self._step_seconds:
            self._settle()
            self._wait_for(self._step_seconds)

    def _wait_for(self, seconds: float) -> None:
        """Set the time that this rank waits for the others."""
        self.seconds = seconds
        self._teams.set_patience(timedelta(seconds=seconds))
        world = dist.group.WORLD
        assert world is not None
        set_timeout(timedelta(seconds=device_seconds(seconds, self.device)), world)

    def replicate(
        self,
        method: nn.Module,
        units: Sequence[nn.Module] = (),
        parallel: str = "ddp",
        half: torch.dtype | None = None,
    ) -> Replica:
        with self._together("start of the model"):
            if parallel == "fsdp":
                return FSDPReplica(method, units, self.device, half)
            return DDPReplica(method, self.device)

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

    def gather_rows(self, tensor: Tensor) -> Tensor | None:
        counts = [int(text) for text in self.gather_texts(str(len(tensor)))]
        padded = tensor.new_zeros(max(counts), *tensor.shape[1:])
        padded[: len(tensor)] = tensor
        with self._together("gathering of rows"):
            found = self._teams.collect(padded)
        if found is None:
            return None
        return torch.cat([rows[:count] for rows, count in zip(found, counts, strict=True)])

    def any_rank(self, *flags: bool) -> tuple[bool, ...]:
        self._settle()
        with self._together("vote"):
            outcome = self._teams.any(flags)
        self._doing = "step"  # after a vote come a step and its gradient reductions
        return outcome

    @property
    def vote_lag(self) -> int:
        return 1

    def vote(self, *flags: bool, now: bool = False) -> tuple[bool, ...]:
        self._settle()
        before = self._outcome or (False,) * len(flags)
        self._outcome = ()
        if now:
            outcome = self.any_rank(*flags)
            return tuple(one or other for one, other in zip(before, outcome, strict=True))
        self._vote = self._votes.do(lambda: self._count(flags))
        self._doing = "step"
        return before

    def gather_texts(self, text: str, *, patient: bool = False) -> list[str]:
        return [data.decode() for data in self._bytes(text.encode(), patient)]

    def gather_tensors(self, tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        own = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        return [load_tensors(data) for data in self._bytes(dump_tensors(own))]

    def run_on_first(self, work: Callable[[], None]) -> None:
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
        (report, *_) = self.gather_texts(report, patient=True)
        if fault is not None:
            raise fault
        if report:
            code, message = json.loads(report)
            raise PeerError(f"rank 0: {message}", reported=True, exit_code=code)

    def report_step(self, step: int) -> None:
        self._step, self._since = step, time.time()

    @contextmanager
    def named_faults(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # torch.distributed's message names no rank
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
        """Count a vote, in the vote thread. This thread reports a lost rank if the main thread
        cannot, because it waits for a device that waits for that rank."""
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
        """Wait for the pending vote, because calls of teams need the same order on all ranks."""
        if self._vote is None:
            return
        with self._together("vote"):
            self._outcome = self._vote.result()
        self._vote = None

    # --- naming the ranks that the others wait for ---

    def _together(self, doing: str) -> waiting:
        """Context of a collective operation, which names the ranks that others wait for."""
        self._doing = doing
        self._round = next(_rounds)
        return waiting(self._late, self._waits)

    def _waits(self) -> None:
        """Report to the other ranks that this rank waits, and in which round."""
        self._store.set(f"waits/{self.rank}", str(self._round))

    def _late(self) -> str:
        """The ranks that do not wait in the same round; empty where a lower rank reports them."""
        number = self._round
        rounds = {**self._rounds_of_all(), self.rank: number}
        here = {rank for rank, there in rounds.items() if there == number}
        if min(here) < self.rank:
            return ""
        late = [rank for rank in range(self.world) if rank not in here]
        if not late:
            return f"the network: the {self._doing}"
        return f"{rank_names(late)} in the {self._doing}"

    def _rounds_of_all(self) -> dict[int, int]:
        said = self._store.multi_get([f"waits/{rank}" for rank in range(self.world)])
        return {rank: int(text) for rank, text in enumerate(said)}

    def _limit(self) -> str:
        if self.seconds == self._step_seconds:
            return f"train.timeout_seconds={self.seconds:g}"
        return f"{self.seconds:g} s until the first step is done"

    def _keep_beating(self) -> None:
        with suppress(Exception):  # the store is gone, with the rank that hosts it
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
        """The error that names the lost ranks; takes a few seconds for any number of ranks."""
        rounds = {self.rank: self._round}
        try:
            beats, silent = self._reader.do(lambda: listen(self._beats)).result(STORE_SECONDS)
            rounds = self._reader.do(self._rounds_of_all).result(STORE_SECONDS) | rounds
        except Exception:  # rank 0 hosts the store
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


def device_seconds(seconds: float, device: torch.device) -> float:
    """Timeout of the device's backend. NCCL kills the process at its timeout, so it gets a longer
    one, to leave time for naming the lost rank."""
    return 2 * seconds + 60 if device.type == "cuda" else seconds


def _is_of_peers(error: RuntimeError) -> bool:
    text = str(error)
    words = ("gloo", "NCCL", "nccl", "timed out", "Timed out", "onnection", "Broken pipe", "peer")
    return isinstance(error, dist.DistError) or any(word in text for word in words)


def _ago(when: float) -> str:
    return f"{max(0.0, time.time() - when):.0f} s ago" if when else "never"
