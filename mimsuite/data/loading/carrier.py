"""From pieces to micro-batches on the device of training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from mimsuite.batch import Batch
from mimsuite.data.damage import Damage
from mimsuite.data.loading.batch_piece import Part, damage_in_order, join
from mimsuite.errors import MimsuiteError


@dataclass(frozen=True)
class Carried:
    """A micro-batch, maybe still on its way.

    Attributes:
        damage: corrupt samples that were met, in the order of rows.
        fault: an error for the user; there is no batch then.
        batch: on the CPU, pinned where the device is a GPU.
        moved: the same on the device.
        arrival: on a GPU, when it is there.
    """

    damage: list[Damage]
    fault: MimsuiteError | None = None
    batch: Batch | None = None
    moved: Batch | None = None
    arrival: torch.cuda.Event | None = None

    def received(self) -> Batch:
        """The batch on the device, for work on the present stream; the host does not wait."""
        assert self.moved is not None
        if self.arrival is not None:
            stream = torch.cuda.current_stream(self.moved.index.device)
            stream.wait_event(self.arrival)
            label = [] if self.moved.label is None else [self.moved.label]
            for tensor in (*self.moved.views.values(), self.moved.index, *label):
                tensor.record_stream(stream)  # its memory is not given away while this one reads
        return self.moved


class Carrier:
    """Joins the pieces of a micro-batch and sends it to the device, on a stream of its own.

    Pinned memory comes from torch's allocator, which keeps what is freed and gives it out again
    once the copy from it is over: a ring of as many buffers as are on their way.

    Args:
        parts: as the workers hand them over, without end.
        pieces: of a micro-batch.
        labelled: whether batches carry labels.
        device: a GPU, or whatever needs no copy ahead.
    """

    def __init__(
        self, parts: Iterator[Part], pieces: int, *, labelled: bool, device: torch.device
    ) -> None:
        self.parts, self.pieces = parts, pieces
        self.labelled, self.device = labelled, device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self) -> Carried:
        """The next micro-batch."""
        parts = [next(self.parts) for _ in range(self.pieces)]
        damage = damage_in_order(parts)
        if (fault := next((part.fault for part in parts if part.fault), None)) is not None:
            return Carried(damage, fault)
        if self.stream is None:
            batch = join(parts, labelled=self.labelled, pin=False)
            return Carried(damage, None, batch, batch)
        with torch.cuda.stream(self.stream):
            batch = join(parts, labelled=self.labelled, pin=True)
            return Carried(damage, None, batch, batch.to(self.device), self.stream.record_event())
