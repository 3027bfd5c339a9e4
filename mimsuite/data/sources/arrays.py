"""A small set in memory: images and labels as arrays."""

from __future__ import annotations

import numpy as np

from mimsuite.data.decoder import Decoder
from mimsuite.data.source import Source


class ArraySource(Source):
    """Images (N, H, W) or (N, H, W, C) uint8 with labels (N,), -1 = unlabelled; each is a shard of
    one sample."""

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        *,
        name: str,
        split: str,
        classes: list[str],
        decoder: Decoder,
    ) -> None:
        super().__init__(
            name=name,
            split=split,
            classes=classes,
            counts=np.ones(len(images), dtype=np.int64),
            labelled=True,
            decoder=decoder,
        )
        self._images, self._labels = images, labels.astype(np.int64)

    def key(self, shard: int, offset: int) -> str:
        return f"{self.split}/{shard:05d}"

    def shard_name(self, shard: int) -> str:
        return self.name

    def label(self, shard: int, offset: int) -> int | None:
        label = int(self._labels[shard])
        return None if label < 0 else label

    def payload(self, shard: int, offset: int) -> np.ndarray:
        image: np.ndarray = self._images[shard]
        return image

    def sample_bytes(self, shard: int, offset: int) -> int:
        return int(self._images[shard].nbytes)

    def labels(self) -> np.ndarray:
        return self._labels.copy()
