"""Mean and deviation of each channel of a set, in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mimsuite.data import open_source
from mimsuite.data.bands.series import StoredSeries
from mimsuite.data.damage import CorruptSample, Damage
from mimsuite.data.decoder import Channels
from mimsuite.data.image.augment import unit
from mimsuite.errors import DataError, UserError

MODALITIES = ("image", "bands")


@dataclass
class ChannelStatistics:
    """Statistics of what was added, per channel: exact counts, float64 moments, merged without
    cancellation (Chan, Golub and LeVeque, 1979).

    Attributes:
        names: of the channels.
        samples: that were read.
        damaged: samples that were left out.
    """

    names: list[str]
    samples: int = 0
    damaged: list[Damage] = field(default_factory=list)

    def __post_init__(self) -> None:
        count = len(self.names)
        self.count = np.zeros(count, np.int64)
        self._mean, self._squares = np.zeros(count), np.zeros(count)
        self.lowest, self.highest = np.full(count, np.inf), np.full(count, -np.inf)

    def add(self, values: np.ndarray, valid: np.ndarray | None = None) -> None:
        """(C, ...) values, of which ``valid`` count; None: all."""
        for channel, row in enumerate(values):
            kept = row.ravel() if valid is None else row[valid[channel]]
            if not kept.size:
                continue
            kept = kept.astype(np.float64)
            mean, old, new = kept.mean(), self.count[channel], kept.size
            step = mean - self._mean[channel]
            self.count[channel] = old + new
            self._mean[channel] += step * new / (old + new)
            between = step**2 * old * new / (old + new)
            self._squares[channel] += ((kept - mean) ** 2).sum() + between
            self.lowest[channel] = min(self.lowest[channel], kept.min())
            self.highest[channel] = max(self.highest[channel], kept.max())

    @property
    def mean(self) -> list[float]:
        return [float(value) for value in self._mean]

    @property
    def std(self) -> list[float]:
        """Population standard deviations."""
        spread = np.sqrt(self._squares / np.maximum(self.count, 1))
        return [float(value) for value in spread]

    def as_json(self) -> dict[str, Any]:
        return {
            "samples": self.samples,
            "channels": self.names,
            "mean": self.mean,
            "std": self.std,
            "min": [float(value) for value in self.lowest],
            "max": [float(value) for value in self.highest],
            "values": [int(value) for value in self.count],
            "left out": [str(damage) for damage in self.damaged],
        }


def statistics(
    spec: str,
    modality: str,
    *,
    split: str = "train",
    channels: Channels = "rgb",
    bands: tuple[str, ...] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ChannelStatistics:
    """Statistics of a split: of images in [0, 1], of rasters as stored, without no-data values.

    Args:
        channels: of images.
        bands: of rasters, as ``data.bands``.

    Raises:
        UserError: another modality, or no such source or split.
        DataError: nothing could be read.
    """
    if modality not in MODALITIES:
        raise UserError(f"data stats is for {' and '.join(MODALITIES)}; {spec} holds {modality}")
    source = open_source(spec, split, modality=modality, channels=channels)
    found: ChannelStatistics | None = None
    damaged = []
    for position in range(len(source)):
        place = source.locate(position)
        try:
            sample = source.decode(source.read(*place))
            for names, values, valid in _parts(sample, bands):
                if found is None:
                    found = ChannelStatistics(names)
                if len(names) != len(found.names):
                    raise CorruptSample(
                        "bands", f"{len(names)} channels, where others have {len(found.names)}"
                    )
                found.add(values, valid)
            if found is not None:
                found.samples += 1
        except CorruptSample as fault:
            damaged.append(source.damage(*place, fault))
        progress(position + 1, len(source))
    if found is None or not found.count.any():
        reason = f"; the first: {damaged[0]}" if damaged else ""
        raise DataError(f"{spec}: no value could be read{reason}")
    found.damaged = damaged
    return found


def _parts(
    sample: Any, bands: tuple[str, ...] | None
) -> Iterator[tuple[list[str], np.ndarray, np.ndarray | None]]:
    """Names of the channels, and the values of a sample piece by piece."""
    if not isinstance(sample, StoredSeries):
        pixels = unit(sample).numpy()
        yield [str(number + 1) for number in range(len(pixels))], pixels, None
        return
    with sample.open(bands) as series:
        for box in series.boxes():
            for date in range(len(series.rasters)):
                yield series.names, *series.window([date], box)
