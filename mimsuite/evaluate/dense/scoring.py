"""Counting what was told of the pixels of each image against the truth.

Letters: N images, D width, C outputs, (h, w) grid of patches, (H, W) pixels of a truth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mimsuite.evaluate.dense.tasks import Depth, Task

if TYPE_CHECKING:
    from mimsuite.config import Resolved
    from mimsuite.data.dense import DenseSource
    from mimsuite.evaluate.dense.features import DenseTables

_MOST_VALUES = 1 << 25  # of the outputs of a batch
_MOST_IMAGES = 128  # of a batch

# (B, D, h, w) features on the device, (H, W) -> (B, C, H, W)
Outputs = Callable[[Tensor, tuple[int, int]], Tensor]
# Truth of the test images, one after the other.
Truths = Iterator[Tensor]


def count_images(
    outputs: Outputs, task: Task, table: np.ndarray, truths: Truths, device: torch.device
) -> np.ndarray:
    """(N, ...) counts; outputs are scaled up to each truth.

    Args:
        table: (N, D, h, w) features; truths N tensors (H, W), of one size or of several.
    """
    counts: list[np.ndarray] = []
    for first, group in _of_one_size(truths, task.channels):
        features = torch.from_numpy(np.array(table[first : first + len(group)])).float().to(device)
        height, width = group[0].shape
        told = task.told(outputs(features, (height, width))).cpu()
        counts += [task.count(said, true) for said, true in zip(told, group, strict=True)]
    return np.stack(counts)


def _of_one_size(truths: Truths, channels: int) -> Iterator[tuple[int, list[Tensor]]]:
    """(number of the first, truths that follow each other and have one size)."""
    first, group = 0, list[Tensor]()
    for truth in truths:
        most = min(_MOST_IMAGES, max(1, _MOST_VALUES // (channels * truth.numel())))
        if group and (truth.shape != group[0].shape or len(group) >= most):
            yield first, group
            first, group = first + len(group), []
        group.append(truth)
    if group:
        yield first, group


def count_constant(task: Task, train: np.ndarray, truths: Truths) -> tuple[np.ndarray, float]:
    """(N, ...) counts of the best answer that is the same for all pixels, and that answer.

    Args:
        train: (n, H, W) truth of the training images, by which it is chosen.
    """
    answer = task.constant(train)
    counts = [task.count(torch.full_like(truth, answer), truth) for truth in truths]
    return np.stack(counts), answer


def truths_of_test(
    tables: DenseTables, source: DenseSource, task: Task, recipe: Resolved
) -> Truths:
    """The truth that test figures are of: at the label resolution, or as stored."""
    target = recipe.recipe.target
    if target.scored == "resolution":
        return scaled_truths(tables.truth[task.name])
    crop = target.depth.crop if task.name == Depth.name else None
    return _stored(source, tables.positions, task.name, crop)


def scaled_truths(truth: np.ndarray) -> Truths:
    """The rows of (N, H, W)."""
    return (torch.from_numpy(np.array(image)) for image in truth)


def _stored(
    source: DenseSource,
    positions: Sequence[int],
    name: str,
    crop: tuple[int, int, int, int] | None,
) -> Truths:
    """Truth as stored; outside the crop there is none."""
    column = ("segments", "depth").index(name)
    for position in positions:
        truth = source.truth(position)[column]
        assert truth is not None
        if crop is not None:
            top, bottom, left, right = crop
            inside = torch.zeros_like(truth)
            inside[top:bottom, left:right] = truth[top:bottom, left:right]
            truth = inside
        yield truth
