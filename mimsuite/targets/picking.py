"""Of boxes that overlap only the best: non-maximum suppression of turned boxes.

Letters: P boxes, E pairs of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mimsuite.targets.boxes import iou, outer_boxes

_PAIRS = 1 << 15  # overlaps computed at once


def pick(boxes: Tensor, scores: Tensor, overlap: float, most: int) -> Tensor:
    """Rows of (P, 7) boxes by falling score, without those whose intersection over union with a
    better one that stays is more than ``overlap``; at most so many."""
    order = scores.argsort(descending=True, stable=True)
    boxes = boxes[order]
    outer = outer_boxes(boxes)
    low, high = outer[:, :3] - outer[:, 3:6] / 2, outer[:, :3] + outer[:, 3:6] / 2
    alive = torch.ones(len(order), dtype=torch.bool, device=boxes.device)
    kept: list[int] = []
    for place in range(len(order)):
        if len(kept) == most:
            break
        if alive[place]:
            kept.append(place)
            # Only boxes whose outlines meet can overlap; there are few, and fewer with every turn.
            meets = (low < high[place]).all(1) & (high > low[place]).all(1) & alive
            meets[: place + 1] = False
            rivals = meets.nonzero().flatten()
            alive[rivals] = _overlaps(boxes[place], boxes[rivals]) <= overlap
    return order[torch.tensor(kept, dtype=torch.int64, device=order.device)]


def _overlaps(box: Tensor, others: Tensor) -> Tensor:
    """(E,) of one box and (E, 7) others."""
    parts = [iou(box.expand_as(part), part) for part in others.split(_PAIRS)]
    return torch.cat(parts) if parts else others.new_zeros(0)
