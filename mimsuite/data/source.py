"""Source: samples in shards, addressed by (shard, offset), with optional labels."""

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

MAX_SAMPLE_BYTES = 1 << 28  # limit of a stored file; a larger one is an attack or a mistake
Payload = bytes | np.ndarray | LocalFile | Stretch


@dataclass(frozen=True)
class Sample:
    """One sample as stored.

    Attributes:
        key: name, unique in the source (in shards of other tools: unique in the shard).
        shard_name: the file or set that holds the sample.
        label: class id, or (K,) float32 targets if the source has ``targets``; None = unlabelled.
        payload: an encoded file, or an array (H, W) or (H, W, C); for a decoder that reads
            ``in_place``, the file's location, and for one that reads ``in_parts``, its place in the
            shard.
        label_map: the stored classes of its voxels, in a form of ``payload``; None = it has none.
    """

    key: str
    shard_name: str
    label: int | np.ndarray | None
    payload: Payload
    label_map: Payload | None = None


class Source(ABC):
    """Samples that can be read in any order. Must be picklable: loader workers receive a copy.

    Args:
        name: the name that the user gave.
        split: ``train``, ``val``, ``test`` ...
        classes: class names, indexed by label; None without names.
        counts: (shards,) int64, samples per shard. If every sample is a separate file, each is a
            shard of one sample, so permuting shards shuffles fully.
        labelled: whether samples have labels (some may still lack one).
        decoder: decodes a payload to a tensor.

    Attributes:
        in_frames: whether samples are videos stored as image files, which decode to
            :class:`~mimsuite.data.sources.frame_folders.Frames`.
        fetched: whether a reading process keeps fetched data around a sample, so that the same
            process should read its neighbours.
        unused: content that is no sample, or is ignored in every sample.
        no_classes: for messages, a description of labels that are not classes; None: they are
            classes, or there are no labels.
        targets: labels that are not classes, see :meth:`take_targets`; None: classes or none.
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
        """(shard, offset) of the sample at a position in source order."""
        if not 0 <= position < len(self):
            raise IndexError(f"{self.name} has {len(self)} samples, not {position + 1}")
        shard = int(np.searchsorted(self._ends, position, side="right"))
        return shard, position - int(self._ends[shard] - self.counts[shard])

    @abstractmethod
    def key(self, shard: int, offset: int) -> str:
        """The sample's key; does not read the payload."""

    @abstractmethod
    def shard_name(self, shard: int) -> str:
        """The name of a shard in messages."""

    @abstractmethod
    def label(self, shard: int, offset: int) -> int | None:
        """The sample's class id; does not read the payload.

        Raises:
            CorruptSample: the stored label is invalid.
        """

    @abstractmethod
    def payload(self, shard: int, offset: int) -> Payload:
        """The stored payload of a sample.

        Raises:
            CorruptSample: it cannot be read, or its checksum is wrong.
        """

    def label_map(self, shard: int, offset: int) -> Payload | None:
        """The stored classes of a sample's voxels; None without them. Raises ``CorruptSample``."""
        return None

    def has_label_map(self, shard: int, offset: int) -> bool:
        """Whether the classes of a sample's voxels are stored; does not read them."""
        return False

    @abstractmethod
    def sample_bytes(self, shard: int, offset: int) -> int:
        """Stored size of the payload in bytes."""

    def read(self, shard: int, offset: int) -> Sample:
        """The sample as stored; raises ``CorruptSample`` if it cannot be read."""
        return Sample(
            key=self.key(shard, offset),
            shard_name=self.shard_name(shard),
            label=self.label(shard, offset)
            if self.targets is None
            else self._target(shard, offset),
            payload=self.payload(shard, offset),
            label_map=self.label_map(shard, offset),
        )

    def label_texts(self) -> Sequence[str] | None:
        """(len,) label texts in source order, "" = unlabelled; None if labels are not texts (class
        folders)."""
        return None

    @property
    def other_labels(self) -> str:
        """For messages about missing classes: a description of the labels; "" without labels."""
        if self.targets is not None:
            return f" (data.targets={self.targets.kind} reads them as no classes)"
        if self.no_classes is not None:
            return f" ({self.no_classes}: read them with data.targets=regression or =multilabel)"
        return ""

    def take_targets(self, kind: Kind) -> None:
        """Read the labels as regression or multi-label targets; the source then has no classes.

        Raises:
            UserError: the labels are not texts.
            DataError: a text is not a valid target.
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
        """The decoded sample, from which views are made. For images (C, H, W) uint8, or float32
        for more than 8 bits; see :class:`Decoder`.
        """
        if sample.label_map is not None:
            return self.decoder.with_label_map(sample.payload, sample.label_map)
        return self.decoder(sample.payload)  # matches the decoder

    def labels(self) -> np.ndarray:
        """(len,) int64 class ids in source order, -1 = unlabelled or unreadable."""
        found = np.full(len(self), -1, dtype=np.int64)
        for position in range(len(self)):
            with suppress(CorruptSample):  # reported when the sample itself is read
                label = self.label(*self.locate(position))
                found[position] = -1 if label is None else label
        return found

    def damage(self, shard: int, offset: int, fault: CorruptSample) -> Damage:
        """The damage record of a sample that could not be read or decoded."""
        return Damage(self.key(shard, offset), self.shard_name(shard), fault.kind, str(fault))
