"""Average precision and recall of predicted boxes.

Class-agnostic, as NeRF-RPN and NeRF-MAE report them.

Letters: P proposals and G true boxes per scene.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mimsuite.targets.boxes import iou_matrix


@dataclass(frozen=True)
class Scene:
    """Predictions and truth of one scene: boxes (P, 7), scores (P,) and truth (G, 7)."""

    boxes: Tensor
    scores: Tensor
    truth: Tensor


@dataclass(frozen=True)
class Hits:
    """Proposals of one scene: their scores (P,), and whether each is right (P,)."""

    scores: Tensor
    right: Tensor
    truths: int


def hits_of(scene: Scene, threshold: float) -> Hits:
    """Judge proposals: one is right if it overlaps its best true box by more than ``threshold`` and
    no higher-scoring proposal has taken that box."""
    overlaps, which = _best(scene)
    found: set[int] = set()
    right = torch.zeros(len(scene.scores), dtype=torch.bool)
    for proposal in scene.scores.argsort(descending=True, stable=True).tolist():
        truth = int(which[proposal])
        if float(overlaps[proposal]) > threshold and truth not in found:
            found.add(truth)
            right[proposal] = True
    return Hits(scene.scores, right, len(scene.truth))


def average_precision(scenes: Sequence[Scene], threshold: float) -> float:
    """Area under the precision envelope, over the proposals of all scenes sorted by score."""
    return precision_of([hits_of(scene, threshold) for scene in scenes])


def precision_of(found: Sequence[Hits]) -> float:
    """Average precision of scenes with judged proposals."""
    truths = sum(hits.truths for hits in found)
    scores = torch.cat([hits.scores for hits in found])
    if truths == 0 or len(scores) == 0:
        return 0.0
    order = scores.argsort(descending=True, stable=True)
    right = torch.cat([hits.right for hits in found])[order].double().cumsum(0)
    precision = right / torch.arange(1, len(scores) + 1)
    envelope = precision.flip(0).cummax(0).values.flip(0)
    recall = right / truths
    steps = recall.diff(prepend=recall.new_zeros(1))
    return float((steps * envelope).sum())


def recall(scenes: Sequence[Scene], threshold: float) -> float:
    """Share of true boxes matched with an overlap of ``threshold`` or more, one proposal each.

    Scenes without proposals are left out, as in the published code, so report their number.
    """
    return recall_of([matched(scene) for scene in scenes if len(scene.boxes)], threshold)


def recall_of(overlaps: Sequence[Tensor], threshold: float) -> float:
    """:func:`recall` from each scene's :func:`matched` overlaps."""
    total = sum(map(len, overlaps))
    return sum(int((own >= threshold).sum()) for own in overlaps) / total if total else 0.0


def _best(scene: Scene) -> tuple[Tensor, Tensor]:
    """(P,) largest overlap of each proposal, and (P,) index of that true box."""
    if len(scene.truth) == 0:
        return torch.full((len(scene.boxes),), -1.0), torch.zeros(len(scene.boxes)).long()
    return iou_matrix(scene.boxes, scene.truth).max(dim=1)


def matched(scene: Scene) -> Tensor:
    """(G,) overlap of each true box with its proposal, matched greedily from the best pair on."""
    overlaps = iou_matrix(scene.boxes, scene.truth)  # (P, G)
    matched = torch.zeros(len(scene.truth), dtype=overlaps.dtype)
    for _ in range(min(overlaps.shape)):
        proposal, truth = divmod(int(overlaps.argmax()), overlaps.shape[1])
        matched[truth] = overlaps[proposal, truth]
        overlaps[proposal], overlaps[:, truth] = -1, -1
    return matched
