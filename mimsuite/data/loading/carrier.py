"""Joins pieces to micro-batches and copies them to the training device."""

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
    """A micro-batch whose copy to the device may still be running.

    Attributes:
        damage: corrupt samples, in row order.
        fault: an error for the user; there is no batch then.
        batch: the batch on the CPU, pinned if the device is a GPU.
        moved: the batch on the device.
        arrival: on a GPU, the event that marks the end of the copy.
    """

    damage: list[Damage]
    fault: MimsuiteError | None = None
    batch: Batch | None = None
    moved: Batch | None = None
    arrival: torch.cuda.Event | None = None

    def received(self) -> Batch:
        """The batch on the device, ready for the current stream; the CPU does not wait."""
        assert self.moved is not None
        if self.arrival is not None:
            stream = torch.cuda.current_stream(self.moved.index.device)
            stream.wait_event(self.arrival)
            label = [] if self.moved.label is None else [self.moved.label]
            for tensor in (*self.moved.views.values(), self.moved.index, *label):
                tensor.record_stream(stream)  # keep the memory until this stream has read it
        return self.moved


class Carrier:
    """Joins the pieces of a micro-batch and copies it to the device on a separate stream.

    Pinned memory comes from torch's caching allocator, which reuses a buffer once the copy from it
    has finished. There are only as many buffers as copies in flight.

    Args:
        parts: an endless iterator over the workers' pieces.
        pieces: pieces per micro-batch.
        labelled: whether batches carry labels.
        device: batches are copied ahead only if it is a GPU.
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
