"""Compare the predictions for each image's pixels with the truth, as counts per image.

Letters: N images, D width, C outputs, (h, w) grid of patches, (H, W) size of a truth in pixels.
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

_MOST_VALUES = 1 << 25  # largest number of output values per batch
_MOST_IMAGES = 128  # largest number of images per batch

# (B, D, h, w) features on the device, (H, W) -> (B, C, H, W)
Outputs = Callable[[Tensor, tuple[int, int]], Tensor]
# Truth of the test images, in order.
Truths = Iterator[Tensor]


def count_images(
    outputs: Outputs, task: Task, table: np.ndarray, truths: Truths, device: torch.device
) -> np.ndarray:
    """(N, ...) counts; outputs are resized to each truth.

    Args:
        table: (N, D, h, w) features.
        truths: N tensors (H, W), of equal or different sizes.
    """
    counts: list[np.ndarray] = []
    for first, group in _of_one_size(truths, task.channels):
        features = torch.from_numpy(np.array(table[first : first + len(group)])).float().to(device)
        height, width = group[0].shape
        predicted = task.predict(outputs(features, (height, width))).cpu()
        counts += [task.count(said, true) for said, true in zip(predicted, group, strict=True)]
    return np.stack(counts)


def _of_one_size(truths: Truths, channels: int) -> Iterator[tuple[int, list[Tensor]]]:
    """(number of the first, consecutive truths of equal size)."""
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
    """(N, ...) counts of the best constant prediction, and that prediction.

    Args:
        train: (n, H, W) truth of the training images; it decides the constant.
    """
    answer = task.constant(train)
    counts = [task.count(torch.full_like(truth, answer), truth) for truth in truths]
    return np.stack(counts), answer


def truths_of_test(
    tables: DenseTables, source: DenseSource, task: Task, recipe: Resolved
) -> Truths:
    """The truth for test figures: at the label resolution, or as stored."""
    target = recipe.recipe.target
    if target.scored == "resolution":
        return scaled_truths(tables.truth[task.name])
    crop = target.depth.crop if task.name == Depth.name else None
    return _stored(source, tables.positions, task.name, crop)


def scaled_truths(truth: np.ndarray) -> Truths:
    """The rows of ``truth`` (N, H, W)."""
    return (torch.from_numpy(np.array(image)) for image in truth)


def _stored(
    source: DenseSource,
    positions: Sequence[int],
    name: str,
    crop: tuple[int, int, int, int] | None,
) -> Truths:
    """Truth as stored; pixels outside the crop are unknown."""
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
