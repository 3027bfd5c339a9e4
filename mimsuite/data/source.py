"""A source: samples in shards, found by (shard, offset), with labels where there are any."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from mimsuite.data.damage import CorruptSample, Damage
from mimsuite.data.decoder import Decoder
from mimsuite.data.local_file import LocalFile, Stretch
from mimsuite.data.sources.label_targets import Kind, Targets, parse
from mimsuite.data.unused import Unused
from mimsuite.errors import UserError

MAX_SAMPLE_BYTES = 1 << 28  # of one stored file; a larger one is an attack or a mistake
Payload = bytes | np.ndarray | LocalFile | Stretch


@dataclass(frozen=True)
class Sample:
    """One sample as it is stored.

    Attributes:
        key: its name, unique in the source (in foreign shards: in the shard).
        shard_name: the file or set that holds it.
        label: class id, or (K,) float32 targets where the source has ``targets``; None =
            unlabelled.
        payload: an encoded file, or an array (H, W) or (H, W, C); of a decoder that reads
            ``in_place``, where the file is, and of one that reads ``in_parts``, where it lies in
            its shard.
    """

    key: str
    shard_name: str
    label: int | np.ndarray | None
    payload: Payload


class Source(ABC):
    """Samples that can be read in any order. Picklable: it goes to loader workers.

    Args:
        name: what the user called it.
        split: ``train``, ``val``, ``test`` ...
        classes: class names, the index is the label; None where there are no names.
        counts: (shards,) int64, samples of each shard. Where samples are files of their own, each
            is a shard of one sample, so permuting shards shuffles fully.
        labelled: whether samples have labels (some may still lack one).
        decoder: turns a payload into pixels.

    Attributes:
        in_frames: whether samples are videos stored as pictures, which decode to
            :class:`~mimsuite.data.sources.frame_folders.Frames`.
        fetched: whether a process that reads keeps what it has fetched around a sample, so that
            neighbours should be read by the same process.
        unused: what lies there and is no sample, or is passed over in all of them.
        no_classes: what the labels are where they are no classes, for messages; None: they are
            classes, or there are none.
        targets: what samples are labelled with instead of classes, see :meth:`take_targets`.
    """

    in_frames = False
    fetched = False

    def __init__(
        self,
        *,
        name: str,
        split: str,
        classes: list[str] | None,
        counts: np.ndarray,
        labelled: bool,
        decoder: Decoder,
    ) -> None:
        self.name, self.split, self.classes = name, split, classes
        self.counts, self.labelled, self.decoder = counts, labelled, decoder
        self.unused = Unused()
        self.no_classes: str | None = None
        self.targets: Targets | None = None
        self._ends = np.cumsum(counts, dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @property
    def annotated(self) -> bool:
        """Whether samples have classes or targets."""
        return self.labelled or self.targets is not None

    def locate(self, position: int) -> tuple[int, int]:
        """(shard, offset) of a sample by its position in source order."""
        if not 0 <= position < len(self):
            raise IndexError(f"{self.name} has {len(self)} samples, not {position + 1}")
        shard = int(np.searchsorted(self._ends, position, side="right"))
        return shard, position - int(self._ends[shard] - self.counts[shard])

    @abstractmethod
    def key(self, shard: int, offset: int) -> str:
        """The sample's key, without reading its payload."""

    @abstractmethod
    def shard_name(self, shard: int) -> str:
        """The name by which a shard is reported."""

    @abstractmethod
    def label(self, shard: int, offset: int) -> int | None:
        """The sample's class id, without reading its payload.

        Raises:
            CorruptSample: the stored label is none.
        """

    @abstractmethod
    def payload(self, shard: int, offset: int) -> Payload:
        """What is stored.

        Raises:
            CorruptSample: it cannot be read, or its checksum is wrong.
        """

    @abstractmethod
    def sample_bytes(self, shard: int, offset: int) -> int:
        """Stored size of the payload."""

    def read(self, shard: int, offset: int) -> Sample:
        """The sample as stored; raises ``CorruptSample`` where it cannot be read."""
        return Sample(
            key=self.key(shard, offset),
            shard_name=self.shard_name(shard),
            label=self.label(shard, offset)
            if self.targets is None
            else self._target(shard, offset),
            payload=self.payload(shard, offset),
        )

    def label_texts(self) -> Sequence[str] | None:
        """(len,) texts of the labels in source order, "" = none; None where labels are no texts, as
        those of class folders."""
        return None

    @property
    def other_labels(self) -> str:
        """For a message that there are no classes: what the labels are; "" where there are none."""
        if self.targets is not None:
            return f" (data.targets={self.targets.kind} reads them as no classes)"
        if self.no_classes is not None:
            return f" ({self.no_classes}: read them with data.targets=regression or =multilabel)"
        return ""

    def take_targets(self, kind: Kind) -> None:
        """Read the labels as targets that are no classes: from now on the source has no classes.

        Raises:
            UserError: labels are no texts.
            DataError: texts that are no such targets.
        """
        texts = self.label_texts()
        if texts is None:
            raise UserError(
                f"data.targets={kind} reads the labels of lists, tables and shards; {self.name} "
                "has none: name a .csv of `path` and `label` with --data"
            )
        self.targets = parse(kind, texts, self.name)
        if self.no_classes is not None:
            self.unused.drop(self.no_classes)
        self.classes, self.labelled, self.no_classes = None, False, None

    def _target(self, shard: int, offset: int) -> np.ndarray:
        assert self.targets is not None
        row: np.ndarray = self.targets.values[self._ends[shard] - self.counts[shard] + offset]
        return row

    def decode(self, sample: Sample) -> Any:
        """What the modality's views are cut from. Of images (C, H, W) uint8, or float32 for more
        than 8 bits; see :class:`Decoder`.
        """
        return self.decoder(sample.payload)  # type: ignore[arg-type]  # its own kind

    def labels(self) -> np.ndarray:
        """(len,) int64 class ids in source order, -1 = unlabelled, or not to be read."""
        found = np.full(len(self), -1, dtype=np.int64)
        for position in range(len(self)):
            with suppress(CorruptSample):  # reported when the sample itself is read
                label = self.label(*self.locate(position))
                found[position] = -1 if label is None else label
        return found

    def damage(self, shard: int, offset: int, fault: CorruptSample) -> Damage:
        """The report of a sample that could not be read or decoded."""
        return Damage(self.key(shard, offset), self.shard_name(shard), fault.kind, str(fault))
