"""What is told of each pixel, how it is learnt, and the figures that are made of it.

A task counts in each image by itself; its figures are made of the counts of many. So the same
counts, images drawn anew with replacement, give the interval of a gain.

Letters: M pixels, H heads, C outputs of a head, K classes, N images.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mimsuite.data.dense import IGNORE
from mimsuite.evaluate.scoring.scorer import Figure

_CLOSE = 1.25  # ratio up to which a distance counts as told, in delta1


class Task(ABC):
    """Base of tasks.

    Attributes:
        name: of the truth that it learns.
        figures: what it makes.
        main: the figure by which heads are chosen; more is better.
        channels: C.
    """

    name: ClassVar[str]
    figures: ClassVar[tuple[Figure, ...]]
    main: ClassVar[str]
    channels: int

    @abstractmethod
    def known(self, truth: Tensor) -> Tensor:
        """Which pixels have a truth; bool, of any shape."""

    @abstractmethod
    def losses(self, outputs: Tensor, truth: Tensor) -> Tensor:
        """(H,) mean loss of each head, of (M, H, C) outputs for (M,) known pixels."""

    @abstractmethod
    def told(self, outputs: Tensor) -> Tensor:
        """What (B, C, ...) outputs say of each pixel."""

    @abstractmethod
    def constant(self, truth: np.ndarray) -> float:
        """What is best said of every pixel, without looking, by the training truth."""

    @abstractmethod
    def count(self, told: Tensor, truth: Tensor) -> np.ndarray:
        """Float64 numbers of one image, of what was told of its pixels and the truth."""

    @abstractmethod
    def measure(self, counts: np.ndarray, weights: np.ndarray) -> dict[str, float]:
        """Figures of (N, ...) counts, each image counting ``weights`` (N,) times."""

    def figures_of(self, counts: np.ndarray) -> dict[str, float]:
        """Figures, each image counting once."""
        return self.measure(counts, np.ones(len(counts)))

    def start(self, truth: np.ndarray) -> float:
        """The bias that heads begin with."""
        return 0.0


class Segments(Task):
    """The class of each pixel; counts are (K, 3): pixels right, told, and true of each class."""

    name = "segments"
    figures = (Figure("miou", "mIoU"), Figure("pixel_accuracy", "pixels right"))
    main = "miou"

    def __init__(self, classes: int) -> None:
        self.channels = classes

    def known(self, truth: Tensor) -> Tensor:
        return truth != IGNORE

    def losses(self, outputs: Tensor, truth: Tensor) -> Tensor:
        heads = outputs.shape[1]
        target = truth.long()[:, None].expand(-1, heads)
        loss = F.cross_entropy(outputs.flatten(0, 1), target.flatten(), reduction="none")
        return loss.view(-1, heads).mean(0)

    def told(self, outputs: Tensor) -> Tensor:
        return outputs.argmax(1).to(torch.uint8)

    def constant(self, truth: np.ndarray) -> float:
        """The most frequent class."""
        counts = np.zeros(self.channels, np.int64)
        for image in truth:
            known = image[image != IGNORE]
            counts += np.bincount(known, minlength=self.channels)
        return float(counts.argmax())

    def count(self, told: Tensor, truth: Tensor) -> np.ndarray:
        known = truth != IGNORE
        said, true = told[known].numpy(), truth[known].numpy()
        parts = (true[said == true], said, true)
        columns = [np.bincount(part, minlength=self.channels) for part in parts]
        return np.stack(columns, axis=1).astype(np.float64)

    def measure(self, counts: np.ndarray, weights: np.ndarray) -> dict[str, float]:
        total = np.tensordot(weights, counts, 1)  # (K, 3)
        iou = self.iou(total)
        return {
            "miou": float(np.nanmean(iou)) if not np.isnan(iou).all() else 0.0,
            "pixel_accuracy": float(total[:, 0].sum() / max(total[:, 2].sum(), 1.0)),
        }

    @staticmethod
    def iou(total: np.ndarray) -> np.ndarray:
        """(K,) intersection over union of (K, 3) counts; NaN of a class that neither occurs nor
        is told, which means leave out."""
        right, said, true = total.T
        union = said + true - right
        return np.divide(right, union, out=np.full(len(total), np.nan), where=union > 0)


class Depth(Task):
    """The distance of each pixel, by its logarithm; counts are (3,): pixels known, pixels whose
    distance is told up to a factor of 1.25, and the sum of squared errors in square metres.

    Figures are means over images, as in Eigen et al. (arXiv:1406.2283) and since.
    """

    name = "depth"
    figures = (Figure("delta1", "delta1"), Figure("rmse", "RMSE", "m"))
    main = "delta1"
    channels = 1

    def __init__(self, nearest: float, farthest: float) -> None:
        self.nearest, self.farthest = nearest, farthest  # metres

    def known(self, truth: Tensor) -> Tensor:
        return (truth >= self.nearest) & (truth <= self.farthest)

    def losses(self, outputs: Tensor, truth: Tensor) -> Tensor:
        """Absolute error of the logarithm."""
        return (outputs[..., 0] - truth.log()[:, None]).abs().mean(0)

    def told(self, outputs: Tensor) -> Tensor:
        low, high = math.log(self.nearest), math.log(self.farthest)
        return outputs[:, 0].clamp(low, high).exp()

    def constant(self, truth: np.ndarray) -> float:
        """The mean distance."""
        return self._mean(truth, log=False)

    def start(self, truth: np.ndarray) -> float:
        """The mean logarithm."""
        return self._mean(truth, log=True)

    def count(self, told: Tensor, truth: Tensor) -> np.ndarray:
        known = self.known(truth)
        said, true = told[known].double(), truth[known].double()
        close = torch.maximum(said / true, true / said) < _CLOSE
        return np.array([len(true), float(close.sum()), float((said - true).square().sum())])

    def measure(self, counts: np.ndarray, weights: np.ndarray) -> dict[str, float]:
        some = counts[:, 0] > 0
        pixels, close, squares = counts[some].T
        weights = weights[some] / max(weights[some].sum(), 1.0)
        return {
            "delta1": float(weights @ (close / pixels)),
            "rmse": float(weights @ np.sqrt(squares / pixels)),
        }

    def _mean(self, truth: np.ndarray, *, log: bool) -> float:
        total, pixels = 0.0, 0
        for image in truth:
            known = image[(image >= self.nearest) & (image <= self.farthest)].astype(np.float64)
            total += float(np.log(known).sum() if log else known.sum())
            pixels += len(known)
        return total / max(pixels, 1)
