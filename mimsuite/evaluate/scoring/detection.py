"""Score box detectors: average precision and recall at overlaps of 25 and 50 %."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.evaluate.scoring.boxes import Hits, Scene, hits_of, matched, precision_of, recall_of
from mimsuite.evaluate.scoring.scorer import Figure, Scorer

_OVERLAPS = {"25": 0.25, "50": 0.5}


@dataclass(frozen=True)
class JudgedScene:
    """Proposals of one scene, judged at each overlap, and the best match of each true box.

    Attributes:
        overlaps: (G,) overlap of each true box with its proposal; None if there are no proposals.
    """

    hits: dict[str, Hits]
    overlaps: Tensor | None


class BoxScorer(Scorer):
    """Class-agnostic boxes."""

    ability = "detect"
    main = "ap_25"
    figures = (
        Figure("ap_25", "AP25"),
        Figure("ap_50", "AP50"),
        Figure("recall_25", "recall 25"),
        Figure("recall_50", "recall 50"),
    )

    def judge(self, method: Any, batch: Batch) -> list[JudgedScene]:
        judged = []
        for (boxes, scores), rows in zip(method.detect(batch), batch.views["boxes"], strict=True):
            truth = rows[rows[:, 3] > 0].float().cpu()
            judged.append(judge(Scene(boxes.float().cpu(), scores.float().cpu(), truth)))
        return judged

    def measure(self, judged: Sequence[JudgedScene]) -> dict[str, float]:
        found = [scene.overlaps for scene in judged if scene.overlaps is not None]
        precision = {
            f"ap_{name}": precision_of([scene.hits[name] for scene in judged]) for name in _OVERLAPS
        }
        recalled = {f"recall_{name}": recall_of(found, least) for name, least in _OVERLAPS.items()}
        return precision | recalled

    def report(self, judged: Sequence[JudgedScene], source: Any) -> dict[str, Any]:
        """Figures, and the number of scenes without proposals, which recall leaves out."""
        empty = sum(scene.overlaps is None for scene in judged)
        return super().report(judged, source) | {"scenes_without_proposals": empty}


def judge(scene: Scene) -> JudgedScene:
    """Compare the proposals of one scene with its true boxes."""
    hits = {name: hits_of(scene, least) for name, least in _OVERLAPS.items()}
    return JudgedScene(hits, matched(scene) if len(scene.boxes) else None)
