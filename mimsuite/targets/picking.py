"""Non-maximum suppression of rotated boxes.

Letters: P boxes, E pairs of boxes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mimsuite.targets.boxes import iou, outer_boxes

_PAIRS = 1 << 15  # overlaps computed at once


def pick(boxes: Tensor, scores: Tensor, overlap: float, most: int) -> Tensor:
    """Ids of the (P, 7) boxes to keep, by falling score.

    A box is dropped when its intersection over union with a kept box of higher score is above
    ``overlap``. At most ``most`` boxes are kept.
    """
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
            # Only boxes whose outer boxes meet can overlap: few, and fewer with every round.
            meets = (low < high[place]).all(1) & (high > low[place]).all(1) & alive
            meets[: place + 1] = False
            rivals = meets.nonzero().flatten()
            alive[rivals] = _overlaps(boxes[place], boxes[rivals]) <= overlap
    return order[torch.tensor(kept, dtype=torch.int64, device=order.device)]


def _overlaps(box: Tensor, others: Tensor) -> Tensor:
    """(E,) intersections over union of one box (7,) with (E, 7) others."""
    parts = [iou(box.expand_as(part), part) for part in others.split(_PAIRS)]
    return torch.cat(parts) if parts else others.new_zeros(0)
