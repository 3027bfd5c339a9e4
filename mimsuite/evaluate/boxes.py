"""How well predicted boxes fit: average precision and recall, and picking boxes that differ.

Class-agnostic, as NeRF-RPN and NeRF-MAE report them.

Letters: P proposals, G true boxes of a scene.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mimsuite.targets.boxes import iou_matrix


@dataclass(frozen=True)
class Scene:
    """Predictions and truth of one scene: (P, 7), (P,) and (G, 7)."""

    boxes: Tensor
    scores: Tensor
    truth: Tensor


def average_precision(scenes: Sequence[Scene], threshold: float) -> float:
    """Area under the precision envelope, over the proposals of all scenes by falling score.

    A proposal is right if the true box that it overlaps most does so by more than ``threshold`` and
    was not found by a better proposal.
    """
    scores = torch.cat([scene.scores for scene in scenes])
    best, which = [], []
    first = 0
    for scene in scenes:
        overlap, at = _best(scene)
        best.append(overlap)
        which.append(at + first)
        first += len(scene.truth)
    if first == 0 or len(scores) == 0:
        return 0.0
    overlaps, truths = torch.cat(best), torch.cat(which)
    found = torch.zeros(first, dtype=torch.bool)
    right = torch.zeros(len(scores), dtype=torch.float64)
    for place, proposal in enumerate(scores.argsort(descending=True, stable=True).tolist()):
        truth = int(truths[proposal])
        if float(overlaps[proposal]) > threshold and not found[truth]:
            found[truth] = True
            right[place] = 1
    hits = right.cumsum(0)
    precision = hits / torch.arange(1, len(scores) + 1)
    envelope = precision.flip(0).cummax(0).values.flip(0)
    recall = hits / first
    steps = recall.diff(prepend=recall.new_zeros(1))
    return float((steps * envelope).sum())


def recall(scenes: Sequence[Scene], threshold: float) -> float:
    """Share of true boxes that are matched by at least ``threshold``, each proposal used once.

    Scenes without proposals are left out, as in the published code: report their number.
    """
    matched = total = 0
    for scene in scenes:
        if len(scene.boxes) == 0:
            continue
        matched += int((_matched(scene) >= threshold).sum())
        total += len(scene.truth)
    return matched / total if total else 0.0


def pick(boxes: Tensor, scores: Tensor, overlap: float, most: int) -> Tensor:
    """Rows of (P, 7) boxes by falling score, without those that overlap a better one by more than
    ``overlap`` (non-maximum suppression); at most so many."""
    order = scores.argsort(descending=True, stable=True)
    overlaps = iou_matrix(boxes[order], boxes[order])
    kept: list[int] = []
    alive = torch.ones(len(order), dtype=torch.bool, device=boxes.device)
    for place in range(len(order)):
        if len(kept) == most:
            break
        if alive[place]:
            kept.append(place)
            alive &= overlaps[place] <= overlap
    return order[torch.tensor(kept, dtype=torch.int64, device=order.device)]


def _best(scene: Scene) -> tuple[Tensor, Tensor]:
    """(P,) largest overlap of each proposal, and with which true box."""
    if len(scene.truth) == 0:
        return torch.full((len(scene.boxes),), -1.0), torch.zeros(len(scene.boxes)).long()
    return iou_matrix(scene.boxes, scene.truth).max(dim=1)


def _matched(scene: Scene) -> Tensor:
    """(G,) overlap of each true box with its proposal: the best pair first, each used once."""
    overlaps = iou_matrix(scene.boxes, scene.truth)  # (P, G)
    matched = torch.zeros(len(scene.truth), dtype=overlaps.dtype)
    for _ in range(min(overlaps.shape)):
        proposal, truth = divmod(int(overlaps.argmax()), overlaps.shape[1])
        matched[truth] = overlaps[proposal, truth]
        overlaps[proposal], overlaps[:, truth] = -1, -1
    return matched
