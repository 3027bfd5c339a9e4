"""Score a trained method; the recipe's targets (``target.kind``) decide the scorer.

A scorer judges each test sample and computes figures from the judgements of many. Resampling the
judgements with replacement gives the interval of a gain, for any figure (Efron & Tibshirani, "An
Introduction to the Bootstrap", 1993, chapter 13).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import torch

from mimsuite.batch import Batch
from mimsuite.data import views_of
from mimsuite.data.source import Source
from mimsuite.data.views import Views
from mimsuite.errors import DataError, Preempted, UserError
from mimsuite.evaluate.bootstrap import Interval
from mimsuite.evaluate.features import normalized_batches
from mimsuite.methods import Method, evaluating
from mimsuite.noise import keyed_rng

if TYPE_CHECKING:
    from mimsuite.config import Resolved
    from mimsuite.train.preempt import StopFlag

_DRAWS = 500
_CONFIDENCE = 0.95


class Figure(NamedTuple):
    """A figure of results: key, title, unit and whether lower is better; a figure in ``%`` is
    stored as a fraction."""

    name: str
    title: str
    unit: str = "%"
    lower: bool = False

    def text(self, value: float) -> str:
        """0.8375 -> ``83.75 %``; 21.5 of unit dB -> ``21.50 dB``; without a unit ``0.8375``."""
        if not self.unit:
            return f"{value:.4g}"
        return f"{100 * value if self.unit == '%' else value:.2f} {self.unit}"


class Scorer(ABC):
    """Base of all scorers.

    Attributes:
        figures: the figures it computes.
        main: name of the figure that learning rates are chosen by; higher is better.
        ability: name of the method's function that it calls.
        labelled: whether samples need class labels.
        counted: word for what a split must have: samples, or labels if samples may lack them.
        at_once: samples per batch; None: ``eval.batch``.
    """

    figures: tuple[Figure, ...]
    main: ClassVar[str]
    ability: ClassVar[str]
    labelled: ClassVar[bool] = False
    counted: ClassVar[str] = "sample"
    at_once: ClassVar[int | None] = None

    def __init__(self, resolved: Resolved) -> None:
        self.resolved, self.recipe = resolved, resolved.recipe

    @cached_property
    def views(self) -> Views:
        """Views of test samples, possibly several per sample."""
        return views_of(self.recipe).test()

    def begin(self, source: Source) -> None:  # noqa: B027, nothing to compare by default
        """Check a source before its first sample is read; raises a ``MimsuiteError`` if it does not
        fit the recipe."""

    @abstractmethod
    def judge(self, method: Any, batch: Batch) -> list[Any]:
        """One small judgement per sample of a normalised batch, on the host; all :attr:`views` of a
        sample are judged together."""

    @abstractmethod
    def measure(self, judged: Sequence[Any]) -> dict[str, float]:
        """Figures by name, from the judgements of samples."""

    @property
    def main_figure(self) -> Figure:
        return next(figure for figure in self.figures if figure.name == self.main)

    def keys_from_data(self, train: Source) -> dict[str, Any]:
        """Recipe keys inferred from the training split, such as the statistics of targets."""
        return {}

    def collect(self, method: Method, source: Source, stop: StopFlag | None = None) -> list[Any]:
        """Judge every sample of a source once.

        Args:
            method: on the device to compute on; in eval mode during the call.
            stop: set by a signal handler; checked at every batch.

        Raises:
            Preempted: a stop signal came; the trained method is already saved.
            UserError: the method lacks :attr:`ability`.
            DataError: no sample, or none with a label.
        """
        self.require_ability(method)
        self.begin(source)
        judged: list[Any] = []
        device = next(method.parameters()).device
        with torch.inference_mode(), evaluating(method):
            for batch in normalized_batches(
                source, self.resolved, device, views=self.views, size=self.at_once
            ):
                if stop:
                    raise Preempted(f"stopped by {stop.name} while scoring; training is saved")
                self.check(method, batch)
                judged += self.judge(method, batch)
        if not judged:
            raise DataError(f"{source.name} has no {self.counted} in split '{source.split}'")
        return judged

    def check(self, method: Method, batch: Batch) -> None:
        """Raise a ``DataError`` for a batch that cannot be judged."""
        method.check(batch)

    def without_looking(self, train: Source, judged: Sequence[Any]) -> tuple[str, list[Any]] | None:
        """Name and judgements of a constant guess based on the training labels; None: no such
        guess."""
        return None

    def require_ability(self, method: Method) -> None:
        """Raise a ``UserError`` for a method that lacks :attr:`ability`."""
        if not hasattr(method, self.ability):
            raise UserError(
                f"{self.recipe.method.name} has no head to score ('{self.ability}'): fine-tune it "
                "first, or probe it with mimsuite linear-probe"
            )

    def gains(self, ours: Sequence[Any], theirs: Sequence[Any]) -> dict[str, Any]:
        """Interval of each figure's difference; both judged the same samples."""
        return {
            name: interval.as_dict()
            for name, interval in paired_figures(self.measure, ours, theirs).items()
        }

    def details(self, judged: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        """Further entries of the results, from each trained method's judgements."""
        return {}

    def report(self, judged: Sequence[Any], source: Source) -> dict[str, Any]:
        """All figures of one method, JSON-able."""
        return self.measure(judged) | {"n_test": len(judged)} | self.described()

    def described(self) -> dict[str, Any]:
        """Description of the figures and the main figure, stored with the results."""
        return {"figures": [figure._asdict() for figure in self.figures], "main": self.main}


def paired_figures(
    measure: Callable[[Any], dict[str, float]],
    ours: Sequence[Any] | np.ndarray,
    theirs: Sequence[Any] | np.ndarray,
    *,
    draws: int = _DRAWS,
    seed: int = 0,
) -> dict[str, Interval]:
    """Percentile interval of every figure's difference; samples are resampled with replacement.

    Raises:
        ValueError: different numbers of samples.
    """
    if len(ours) != len(theirs):
        raise ValueError(f"not paired: {len(ours)} and {len(theirs)} samples")
    rng = keyed_rng(seed, "bootstrap figures", len(ours))
    all_of_them = _differences(measure(ours), measure(theirs))
    drawn: dict[str, list[float]] = {name: [] for name in all_of_them}
    for _ in range(draws):
        rows = rng.integers(len(ours), size=len(ours))
        pair = measure(_drawn(ours, rows)), measure(_drawn(theirs, rows))
        for name, value in _differences(*pair).items():
            drawn[name].append(value)
    tail = (1 - _CONFIDENCE) / 2
    intervals = {}
    for name, value in all_of_them.items():
        low, high = np.quantile(drawn[name], [tail, 1 - tail])
        bounds = value, float(low), float(high)
        intervals[name] = Interval(*bounds, _CONFIDENCE, seeds=1, samples=len(ours))
    return intervals


def _drawn(judged: Sequence[Any] | np.ndarray, rows: np.ndarray) -> Any:
    return judged[rows] if isinstance(judged, np.ndarray) else [judged[row] for row in rows]


def _differences(ours: Mapping[str, float], theirs: Mapping[str, float]) -> dict[str, float]:
    return {name: value - theirs[name] for name, value in ours.items()}


# Scorers by kind of target; all other kinds are classes.
_SCORERS = {
    "boxes": "mimsuite.evaluate.scoring.detection:BoxScorer",
    "voxel-labels": "mimsuite.evaluate.scoring.voxels:VoxelScorer",
    "scan-labels": "mimsuite.evaluate.scoring.scans:ScanScorer",
    "super-resolution": "mimsuite.evaluate.scoring.super_resolution:FinerScorer",
    "pixels": "mimsuite.evaluate.scoring.reconstruction:ReconstructionScorer",
    "reconstruction": "mimsuite.evaluate.scoring.reconstruction:ReconstructionScorer",
    "coded-reconstruction": "mimsuite.evaluate.scoring.reconstruction:CodedScorer",
    "parts": "mimsuite.evaluate.scoring.part_segmentation:PartScorer",
}
_TARGETS = {
    "regression": "mimsuite.evaluate.scoring.targets:RegressionScorer",
    "multilabel": "mimsuite.evaluate.scoring.targets:MultilabelScorer",
}
_CLASSES = "mimsuite.evaluate.scoring.classes:ClassScorer"


def scorer_of(resolved: Resolved) -> Scorer:
    """The scorer for the recipe's ``data.targets`` and ``target.kind``."""
    kind = getattr(resolved.recipe.target, "kind", "")
    path = _TARGETS.get(resolved.recipe.data.targets) or _SCORERS.get(kind, _CLASSES)
    module, _, name = path.partition(":")
    made: Scorer = getattr(import_module(module), name)(resolved)
    return made
