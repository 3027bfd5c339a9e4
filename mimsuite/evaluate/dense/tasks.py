"""Per-pixel tasks (segmentation, depth): their loss, prediction and metrics.

A task counts within each image, and its figures are computed from the counts of many images.
Resampling the images' counts with replacement gives the interval of a gain.

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

_CLOSE = 1.25  # largest ratio of prediction and truth that counts as right, in delta1


class Task(ABC):
    """Base of tasks.

    Attributes:
        name: name of its truth.
        figures: the figures it computes.
        main: the figure by which heads are chosen; higher is better.
        channels: C, outputs of a head.
    """

    name: ClassVar[str]
    figures: ClassVar[tuple[Figure, ...]]
    main: ClassVar[str]
    channels: int

    @abstractmethod
    def known(self, truth: Tensor) -> Tensor:
        """Whether each pixel has a truth; bool, same shape as ``truth``."""

    @abstractmethod
    def losses(self, outputs: Tensor, truth: Tensor) -> Tensor:
        """(H,) mean loss of each head, from (M, H, C) outputs and (M,) truth of known pixels."""

    @abstractmethod
    def predict(self, outputs: Tensor) -> Tensor:
        """Predictions, class ids or metres, from head outputs (B, C, ...)."""

    @abstractmethod
    def constant(self, truth: np.ndarray) -> float:
        """The best constant prediction, from the training truth."""

    @abstractmethod
    def count(self, told: Tensor, truth: Tensor) -> np.ndarray:
        """Float64 counts of one image, from its predictions and its truth."""

    @abstractmethod
    def measure(self, counts: np.ndarray, weights: np.ndarray) -> dict[str, float]:
        """Figures from (N, ...) counts; image i counts ``weights[i]`` times."""

    def figures_of(self, counts: np.ndarray) -> dict[str, float]:
        """Figures from (N, ...) counts; each image counts once."""
        return self.measure(counts, np.ones(len(counts)))

    def start(self, truth: np.ndarray) -> float:
        """Initial bias of the heads."""
        return 0.0


class Segments(Task):
    """The class of each pixel; counts are (K, 3): right, predicted and true pixels per class."""

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

    def predict(self, outputs: Tensor) -> Tensor:
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
        """(K,) intersection over union from (K, 3) counts; NaN, to be left out, for a class that
        neither occurs nor is predicted."""
        right, said, true = total.T
        union = said + true - right
        return np.divide(right, union, out=np.full(len(total), np.nan), where=union > 0)


class Depth(Task):
    """Depth of each pixel, predicted as a logarithm. Counts are (3,): known pixels, pixels whose
    prediction is within a factor of 1.25, and the sum of squared errors in square metres.

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

    def predict(self, outputs: Tensor) -> Tensor:
        low, high = math.log(self.nearest), math.log(self.farthest)
        return outputs[:, 0].clamp(low, high).exp()

    def constant(self, truth: np.ndarray) -> float:
        """The mean depth."""
        return self._mean(truth, log=False)

    def start(self, truth: np.ndarray) -> float:
        """The mean logarithm of depth."""
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
