"""Score voxel labels: mean intersection over union and accuracies.

Only labelled voxels count, and only classes from 1 on compete for them.

Letters: B scenes, K classes including 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.evaluate.scoring.scorer import Figure, Scorer
from mimsuite.targets.voxels import voxel_counts


class VoxelScorer(Scorer):
    """The judgement of a scene is (3, K): right, predicted and true voxels per class."""

    ability = "voxel_logits"
    main = "miou"
    figures = (
        Figure("miou", "mIoU"),
        Figure("macc", "class accuracy"),
        Figure("accuracy", "voxel accuracy"),
    )

    def judge(self, method: Any, batch: Batch) -> list[Tensor]:
        found = method.voxel_logits(batch.views["grid"])[:, 1:].argmax(1) + 1
        labels = batch.views["labels"].long()
        return list(voxel_counts(found, labels, method.classes).cpu())

    def measure(self, judged: Sequence[Tensor]) -> dict[str, float]:
        return label_figures(torch.stack(list(judged)).sum(0))

    def report(self, judged: Sequence[Tensor], source: Any) -> dict[str, Any]:
        """Figures, and the intersection over union of each label."""
        right, found, true = torch.stack(list(judged)).sum(0)[:, 1:].double()
        ious = right / (found + true - right).clamp_min(1)
        of_label = {str(label): value for label, value in enumerate(ious.tolist(), start=1)}
        return super().report(judged, source) | {"per_label": of_label}


def label_figures(counts: Tensor) -> dict[str, float]:
    """Means over classes 1 to K - 1, from (3, K) counts: right, predicted, true.

    As published, a class that does not occur counts as 0.
    """
    right, found, true = counts[:, 1:].double()
    union = found + true - right
    return {
        "miou": float((right / union.clamp_min(1)).mean()),
        "macc": float((right / true.clamp_min(1)).mean()),
        "accuracy": float(right.sum() / true.sum().clamp_min(1)),
    }
