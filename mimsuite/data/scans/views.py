"""Views of scans: ``scan`` (R, 1, X, Y, Z), crops of one reading, R = 1 when evaluated; and
``labels`` (R, X, Y, Z) uint8, the classes of their voxels, for recipes that learn them.

On its way to the device a batch of B scans becomes one of R * B crops, as clips of a video do; see
:mod:`mimsuite.data.video.views`. Scans smaller than a crop are padded evenly with their own darkest
half percent; of padding no class is known.
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
from mimsuite.data.scans.label_maps import UNKNOWN, check_fit
from mimsuite.data.scans.packed import Packed
from mimsuite.data.unused import notice
from mimsuite.data.video.views import ClipNormalize
from mimsuite.data.views import Views

Scan = WholeScan | Packed


class ScanViews(Views):
    """Crops by the recipe's ``augment:``, of the size of ``model.encoder``."""

    main = "scan"
    scaled_by = (
        "augment.intensity (kind: window, percentiles or none), or augment.spacing where most of a "
        "crop is padding,"
    )

    def __init__(self, recipe: Recipe) -> None:
        encoder: CubeViTSection = recipe.model.encoder
        augment: object = recipe.augment
        assert isinstance(augment, ScanAugmentSection)
        self.recipe, self.augment, self.size = recipe, augment, encoder.size
        self.learns_labels = getattr(getattr(recipe, "target", None), "kind", "") == "scan-labels"

    def train(self, sample: StoredScan, rng: np.random.Generator) -> dict[str, Tensor]:
        """``repeats`` random crops, each mirrored, turned, scaled and shifted by its own draws.

        Raises:
            CorruptSample: it cannot be read, or lacks the labels that are learnt.
        """
        scan, labels = self._opened(sample)
        places = None if labels is None else self._labelled_voxels(labels, rng)
        crops = []
        for _ in range(self.augment.repeats):
            low = self._random_low(scan, rng) if places is None else self._around(places, scan, rng)
            crops.append(self._augmented(self._crops(scan, labels, low, self.size), rng))
        return {name: torch.stack([crop[name] for crop in crops]) for name in crops[0]}

    def evaluate(self, sample: StoredScan) -> dict[str, Tensor]:
        """The crop around the middle of the foreground, or of the scan; raises as :meth:`train`."""
        scan, labels = self._opened(sample)
        middle = [(a + b) // 2 for a, b in self._range(scan)]
        low = [at - side // 2 for at, side in zip(middle, self.size, strict=True)]
        found = self._crops(scan, labels, self._inside(scan, low, self.size), self.size)
        return {name: crop[None] for name, crop in found.items()}

    def test(self) -> Views:
        """Whole scans, where labels are learnt."""
        return WholeScanViews(self.recipe) if self.learns_labels else self

    def normalizer(self, device: torch.device | str) -> Callable[[Batch], Batch]:
        return ScanNormalize(self.augment, device)  # type: ignore[arg-type]  # mean and std

    def shapes(self) -> dict[str, tuple[int, ...]]:
        found: dict[str, tuple[int, ...]] = {"scan": (1, *self.size)}
        return found | {"labels": self.size} if self.learns_labels else found

    def notice_unused(self, sample: StoredScan) -> None:
        if sample.label_map is not None and not self.learns_labels:
            notice("label maps, which this recipe does not learn")

    def raw(self, batch: Batch) -> Tensor:
        """(B, 512): crops averaged to 8 x 8 x 8."""
        return adaptive_avg_pool3d(batch.views["scan"].float(), 8).flatten(1)

    def _opened(self, sample: StoredScan) -> tuple[Scan, Scan | None]:
        """The scan, and its label map where labels are learnt."""
        scan = sample.at(self.augment.millimetres)
        if not self.learns_labels:
            return scan, None
        labels = sample.labels_at(self.augment.millimetres)
        check_fit(scan.shape, labels.shape)
        return scan, labels

    def _labelled_voxels(self, labels: Scan, rng: np.random.Generator) -> np.ndarray | None:
        """(n, 3) voxels of one class, drawn evenly from those that occur, with the probability
        ``augment.labelled``; None: not this time, or nothing is labelled."""
        if rng.random() >= getattr(self.augment, "labelled", 0.0):
            return None
        whole = labels.crop((0, 0, 0), labels.shape)
        classes = [one for one in np.unique(whole) if one not in (0, UNKNOWN)]
        return np.argwhere(whole == rng.choice(classes)) if classes else None

    def _around(self, places: np.ndarray, scan: Scan, rng: np.random.Generator) -> list[int]:
        """The first voxel of a crop around one of these voxels."""
        middle = places[rng.integers(len(places))]
        low = [int(at) - side // 2 for at, side in zip(middle, self.size, strict=True)]
        return self._inside(scan, low, self.size)

    def _range(self, scan: Scan) -> list[tuple[int, int]]:
        """Where crops have their middle, along each axis."""
        if self.augment.foreground:
            return [*zip(scan.summary.low, scan.summary.high, strict=True)]
        return [(0, side) for side in scan.shape]

    def _random_low(self, scan: Scan, rng: np.random.Generator) -> list[int]:
        """The first voxel of a crop: uniform over those crops that lie in the range, or, where the
        range is narrower than a crop, over those that cover it."""
        low = []
        for (begin, end), side in zip(self._range(scan), self.size, strict=True):
            first, last = sorted((begin, end - side))
            low.append(int(rng.integers(first, last + 1)))
        return self._inside(scan, low, self.size)

    def _inside(self, scan: Scan, low: Sequence[int], size: Sequence[int]) -> list[int]:
        """Moved into the scan, or so that the scan is in the middle where it is smaller."""
        return [
            -((side - length) // 2) if length < side else min(max(at, 0), length - side)
            for at, side, length in zip(low, size, scan.shape, strict=True)
        ]

    def _crops(
        self, scan: Scan, labels: Scan | None, low: Sequence[int], size: Sequence[int]
    ) -> dict[str, Tensor]:
        """``scan`` (1, X, Y, Z) float32, intensities scaled, and ``labels`` (X, Y, Z) uint8."""
        found, padding = _cut(scan, low, size)
        rule, summary = self.augment.intensity, scan.summary
        dark = float(scaled(np.array(summary.percentile(0.5)), rule, summary))
        values = np.pad(scaled(found, rule, summary), padding, constant_values=dark)
        crops = {"scan": torch.from_numpy(np.ascontiguousarray(values))[None]}
        if labels is not None:
            found, padding = _cut(labels, low, size)
            crops["labels"] = torch.from_numpy(np.pad(found, padding, constant_values=UNKNOWN))
        return crops

    def _augmented(self, crops: dict[str, Tensor], rng: np.random.Generator) -> dict[str, Tensor]:
        augment = self.augment
        for axis in (-3, -2, -1):
            if rng.random() < augment.flip:
                crops = {name: crop.flip(axis) for name, crop in crops.items()}
        if rng.random() < augment.rotate:
            turns = int(rng.integers(1, 4))
            crops = {name: crop.rot90(turns, (-3, -2)) for name, crop in crops.items()}
        scan = crops["scan"]
        if rng.random() < augment.scale_intensity:
            scan = scan * (1 + float(rng.uniform(-0.1, 0.1)))
        if rng.random() < augment.shift_intensity:
            scan = scan + float(rng.uniform(-0.1, 0.1))
        return {name: crop.contiguous() for name, crop in (crops | {"scan": scan}).items()}


class WholeScanViews(ScanViews):
    """Whole scans with their labels, padded to the size of a crop at least. Their sizes differ, so
    a batch holds one."""

    def evaluate(self, sample: StoredScan) -> dict[str, Tensor]:
        scan, labels = self._opened(sample)
        size = [max(pair) for pair in zip(self.size, scan.shape, strict=True)]
        found = self._crops(scan, labels, self._inside(scan, [0, 0, 0], size), size)
        return {name: crop[None] for name, crop in found.items()}


class ScanNormalize(ClipNormalize):
    """Normalises crops, not the classes of their voxels, which alone are uint8."""

    def _view(self, view: Tensor) -> Tensor:
        return view if view.dtype == torch.uint8 else super()._view(view)


def _cut(
    scan: Scan, low: Sequence[int], size: Sequence[int]
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """What of a crop lies in the scan, and how much is missing at both ends of each axis."""
    first = [max(at, 0) for at in low]
    last = [min(at + n, length) for at, n, length in zip(low, size, scan.shape, strict=True)]
    found = scan.crop(first, [b - a for a, b in zip(first, last, strict=True)])
    padding = [(a - at, at + n - b) for at, n, a, b in zip(low, size, first, last, strict=True)]
    return found, padding
