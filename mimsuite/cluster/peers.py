"""What a process knows of the others that train with it: nothing, if it is alone.

Only the trainer uses peers, never methods or probes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mimsuite.cluster.replica import Replica
from mimsuite.errors import MimsuiteError


class Peers:
    """A single process: every operation is trivial.

    Of several processes: :class:`~mimsuite.cluster.group.ProcessGroupPeers`.
    """

    rank, world = 0, 1

    @property
    def first(self) -> bool:
        """Whether this is rank 0, the process that writes and prints."""
        return self.rank == 0

    def replicate(
        self,
        method: nn.Module,
        units: Sequence[nn.Module] = (),
        parallel: str = "ddp",
        half: torch.dtype | None = None,
    ) -> Replica:
        """Wrap the method's forward pass so that ranks share gradients.

        Args:
            units: modules of the method whose weights ``fsdp`` gathers one module at a time.
            parallel: ``ddp`` or ``fsdp``; a single process ignores it.
            half: 16-bit type of the forward pass, in which ``fsdp`` gathers weights.
        """
        return Replica(method)

    def mean(self, values: Tensor) -> Tensor:
        """Elementwise mean over ranks; no gradient."""
        return values

    def gather(self, tensor: Tensor) -> Tensor:
        """(B, ...) of every rank -> (world B, ...), in the order of ranks, with gradient."""
        return tensor

    def sum(self, tensor: Tensor) -> Tensor:
        """Elementwise sum over ranks, with gradient."""
        return tensor

    def gather_rows(self, tensor: Tensor) -> Tensor | None:
        """Gather (N, ...) CPU rows of every rank, in the order of ranks.

        N may differ between ranks. The first rank gets the result, the others ``None``.
        """
        return tensor

    def any_rank(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag, whether it is set on any rank."""
        return flags

    @property
    def vote_lag(self) -> int:
        """By how many votes the outcome of :meth:`vote` is delayed."""
        return 0

    def vote(self, *flags: bool, now: bool = False) -> tuple[bool, ...]:
        """Like :meth:`any_rank`, without waiting: several ranks get the outcome from the next vote.

        Args:
            now: wait for this vote, because it is the last; the outcome includes the vote before.
        """
        return flags

    def gather_texts(self, text: str, *, patient: bool = False) -> list[str]:
        """The text of every rank, on every rank.

        Args:
            patient: wait for the others without the timeout of a step.
        """
        return [text]

    def gather_tensors(self, tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """Small CPU tensors of every rank, on every rank; names and shapes must be equal."""
        return [tensors]

    def run_on_first(self, work: Callable[[], None]) -> None:
        """Run ``work`` on the first rank; its error is raised on all ranks.

        ``train.timeout_seconds``, which limits steps, does not apply.
        """
        work()

    def text_of_first(self, work: Callable[[], str]) -> str:
        """Run ``work`` on the first rank as :meth:`run_on_first`; its text, on every rank."""
        found: list[str] = []
        self.run_on_first(lambda: found.append(work()))
        return self.gather_texts("".join(found))[0]

    def report_step(self, step: int) -> None:
        """Report this rank's step, so that peers can name a late rank."""

    def steps_begin(self) -> None:
        """Apply ``train.timeout_seconds`` from now on: before the first step, ranks differ much in
        the time to read and compile."""

    @contextmanager
    def named_faults(self) -> Iterator[None]:
        """Context of training in which a lost or stopped peer raises an error that names it."""
        yield


ALONE = Peers()


class PeerError(MimsuiteError):
    """Another rank failed or does not answer; ``reported`` if that rank reported it itself."""

    def __init__(self, message: str, reported: bool = False, exit_code: int = 1) -> None:
        super().__init__(message)
        self.reported, self.exit_code = reported, exit_code


def rank_names(numbers: Sequence[int]) -> str:
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
