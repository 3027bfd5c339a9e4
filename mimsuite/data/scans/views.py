"""Views of scans: ``scan`` (R, 1, X, Y, Z), crops of one reading, R = 1 when evaluated.

On its way to the device a batch of B scans becomes one of R * B crops, as clips of a video do; see
:mod:`mimsuite.data.video.views`. Scans smaller than a crop are padded evenly with their own darkest
half percent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool3d

from mimsuite.batch import Batch
from mimsuite.config.keys.scans import CubeViTSection, ScanAugmentSection
from mimsuite.config.keys.shared import Recipe
from mimsuite.data.scans.decode import StoredScan, WholeScan
from mimsuite.data.scans.intensity import scaled
from mimsuite.data.scans.packed import Packed
from mimsuite.data.video.views import ClipNormalize
from mimsuite.data.views import Views


class ScanViews(Views):
    """Crops by the recipe's ``augment:``, of the size of ``model.encoder``."""

    main = "scan"

    def __init__(self, recipe: Recipe) -> None:
        encoder: CubeViTSection = recipe.model.encoder
        augment: object = recipe.augment
        assert isinstance(augment, ScanAugmentSection)
        self.augment, self.size = augment, encoder.size

    def train(self, sample: StoredScan, rng: np.random.Generator) -> dict[str, Tensor]:
        """``repeats`` random crops, each mirrored, turned, scaled and shifted by its own draws."""
        scan = sample.at(self.augment.millimetres)
        crops = [
            self._augmented(self._crop(scan, self._random_low(scan, rng)), rng)
            for _ in range(self.augment.repeats)
        ]
        return {"scan": torch.stack(crops)}

    def evaluate(self, sample: StoredScan) -> dict[str, Tensor]:
        """The crop around the middle of the foreground, or of the scan."""
        scan = sample.at(self.augment.millimetres)
        middle = [(a + b) // 2 for a, b in self._range(scan)]
        low = [at - side // 2 for at, side in zip(middle, self.size, strict=True)]
        return {"scan": self._crop(scan, self._inside(scan, low))[None]}

    def normalizer(self, device: torch.device | str) -> Callable[[Batch], Batch]:
        return ClipNormalize(self.augment, device)  # type: ignore[arg-type]  # mean and std

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"scan": (1, *self.size)}

    def raw(self, batch: Batch) -> Tensor:
        """(B, 512): crops averaged to 8 x 8 x 8."""
        return adaptive_avg_pool3d(batch.views["scan"].float(), 8).flatten(1)

    def _range(self, scan: WholeScan | Packed) -> list[tuple[int, int]]:
        """Where crops have their middle, along each axis."""
        if self.augment.foreground:
            return [*zip(scan.summary.low, scan.summary.high, strict=True)]
        return [(0, side) for side in scan.shape]

    def _random_low(self, scan: WholeScan | Packed, rng: np.random.Generator) -> list[int]:
        """The first voxel of a crop: uniform over those crops that lie in the range, or, where the
        range is narrower than a crop, over those that cover it."""
        low = []
        for (begin, end), side in zip(self._range(scan), self.size, strict=True):
            first, last = sorted((begin, end - side))
            low.append(int(rng.integers(first, last + 1)))
        return self._inside(scan, low)

    def _inside(self, scan: WholeScan | Packed, low: Sequence[int]) -> list[int]:
        """Moved into the scan, or so that the scan is in the middle where it is smaller."""
        return [
            -((side - length) // 2) if length < side else min(max(at, 0), length - side)
            for at, side, length in zip(low, self.size, scan.shape, strict=True)
        ]

    def _crop(self, scan: WholeScan | Packed, low: Sequence[int]) -> Tensor:
        """(1, X, Y, Z) float32, intensities scaled."""
        first = [max(at, 0) for at in low]
        last = [
            min(at + side, length)
            for at, side, length in zip(low, self.size, scan.shape, strict=True)
        ]
        found = scan.crop(first, [b - a for a, b in zip(first, last, strict=True)])
        values = scaled(found, self.augment.intensity, scan.summary)
        if values.shape != self.size:
            dark = scaled(
                np.array(scan.summary.percentile(0.5)), self.augment.intensity, scan.summary
            )
            padding = [
                (a - at, at + side - b)
                for at, side, a, b in zip(low, self.size, first, last, strict=True)
            ]
            values = np.pad(values, padding, constant_values=float(dark))
        return torch.from_numpy(np.ascontiguousarray(values))[None]

    def _augmented(self, crop: Tensor, rng: np.random.Generator) -> Tensor:
        augment = self.augment
        for axis in (1, 2, 3):
            if rng.random() < augment.flip:
                crop = crop.flip(axis)
        if rng.random() < augment.rotate:
            crop = crop.rot90(int(rng.integers(1, 4)), (1, 2))
        if rng.random() < augment.scale_intensity:
            crop = crop * (1 + float(rng.uniform(-0.1, 0.1)))
        if rng.random() < augment.shift_intensity:
            crop = crop + float(rng.uniform(-0.1, 0.1))
        return crop.contiguous()
