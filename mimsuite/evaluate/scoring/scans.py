"""Score the classes of the voxels of whole scans: Dice, and the 95th percentile of the distances
between surfaces.

Of a scan, a class counts where it occurs in truth or prediction; where it occurs in one of them
only, its Dice is 0 and its distance the diagonal of the scan. Figures are means over scans for each
class, then over classes; the background is none. All is measured at ``augment.spacing``.

Letters: B scans, K classes including the background.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.config.keys.scans import ScanAugmentSection
from mimsuite.data.scans.label_maps import UNKNOWN
from mimsuite.evaluate.scoring.scorer import Figure, Scorer
from mimsuite.evaluate.scoring.surface_distance import hd95
from mimsuite.targets.scan_labels import dice


class ScanScorer(Scorer):
    """The judgement of a scan is (2, K - 1) float64: Dice and distance of each class, NaN where it
    does not occur."""

    ability = "voxel_labels"
    main = "dice"
    at_once = 1  # whole scans differ in size
    figures = (Figure("dice", "Dice"), Figure("hd95", "HD95", "mm"))

    def judge(self, method: Any, batch: Batch) -> list[np.ndarray]:
        return [
            self.judged(method.voxel_labels(scan), labels)
            for scan, labels in zip(batch.views["scan"], batch.views["labels"], strict=True)
        ]

    def judged(self, found: Tensor, true: Tensor) -> np.ndarray:
        """The judgement of a prediction by (X, Y, Z) true classes; unknown voxels do not count."""
        augment: object = self.recipe.augment
        assert isinstance(augment, ScanAugmentSection)
        spacing = augment.millimetres
        known = true != UNKNOWN
        found, true = (torch.where(known, one.long(), 0) for one in (found, true))
        diagonal = float(np.linalg.norm(np.array(found.shape) * spacing))
        rows = []
        for label in range(1, self.recipe.target.labels):
            here, there = found == label, true == label
            distance = hd95(here.cpu().numpy(), there.cpu().numpy(), spacing)
            if bool(here.any()) != bool(there.any()):
                distance = diagonal
            rows.append((float(dice(here, there)), distance))
        return np.array(rows).T

    def measure(self, judged: Sequence[np.ndarray]) -> dict[str, float]:
        means = by_class(judged)
        known = ~np.isnan(means[0])
        if not known.any():
            return {"dice": 0.0, "hd95": 0.0}
        return {"dice": float(means[0][known].mean()), "hd95": float(means[1][known].mean())}

    def report(self, judged: Sequence[np.ndarray], source: Any) -> dict[str, Any]:
        """Figures, and both of each class; null for a class that no scan has."""
        means = by_class(judged)
        names = self.recipe.target.shown
        each = {
            name: {"dice": _number(share), "hd95": _number(distance)}
            for name, share, distance in zip(names, *means, strict=True)
        }
        return super().report(judged, source) | {"per_class": each}


def by_class(judged: Sequence[np.ndarray]) -> np.ndarray:
    """(2, K - 1) means over the scans in which a class occurs; NaN where it is in none."""
    table = np.stack(list(judged))  # (B, 2, K - 1)
    count = (~np.isnan(table)).sum(0)
    with np.errstate(invalid="ignore"):
        means: np.ndarray = np.nansum(table, axis=0) / count
    return means


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
