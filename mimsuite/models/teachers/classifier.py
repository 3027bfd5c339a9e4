"""A trained classifier as a teacher: its scores for the student's samples.

Letters: B batch, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mimsuite.config.keys.teachers import LogitTeacherSection, Statistics
from mimsuite.errors import UserError
from mimsuite.models.teachers.base import frozen, is_counted, normalization
from mimsuite.models.teachers.files import require
from mimsuite.models.trained import open_trained

_WHERE = "a classifier fine-tuned by mimsuite, or published classifier weights that it can read"


class LogitTeacher:
    """A frozen classifier of the student's classes that scores the student's samples.

    Like every teacher it is not a module, and loads its weights on first use.

    Args:
        section: the classifier's weights and shape, and the weight of its scores.
        classes: number of the student's classes.
        sample: shape of one sample, the same for student and teacher.
        statistics: mean and standard deviation by which the student's samples are normalised.
        fresh: makes a classifier of the section's shape, without trained weights.
        key: dotted key of the section in the recipe, for messages.
    """

    def __init__(
        self,
        section: LogitTeacherSection,
        classes: int,
        sample: tuple[int, ...],
        statistics: Statistics,
        fresh: Callable[[], Any],
        key: str = "target.teacher",
    ) -> None:
        self.section, self.classes, self.sample = section, classes, sample
        self.statistics, self._fresh, self._key = statistics, fresh, key
        self._found: tuple[Any, Statistics] | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> LogitTeacher:
        return self  # frozen, so a moving average of the student can share it

    def open(self) -> list[str]:
        """Load the weights now; returns lines to print.

        Raises:
            UserError: weights are missing, are no classifier, or have other classes or another
                sample shape.
        """
        self._opened()
        if self.section.stands_in:
            return ["TEACHER WITH RANDOM WEIGHTS: a placeholder, nothing is learnt from it"]
        return [f"teacher: {self.section.weights}, scores of {self.classes} classes"]

    def blend(self, samples: Tensor, target: Tensor) -> Tensor:
        """Blend targets (B, K) with the teacher's probabilities, which weigh ``section.weight``."""
        probabilities = self.logits(samples).softmax(dim=-1)
        return torch.lerp(target, probabilities, self.section.weight)

    def logits(self, samples: Tensor) -> Tensor:
        """(B, K) float32 logits of the student's normalised samples, without gradient."""
        method, statistics = self._counted(samples) if is_counted(samples) else self._opened()
        if next(method.parameters()).device != samples.device:
            method.to(samples.device)
        with torch.no_grad():
            change = normalization(self.statistics, statistics, samples.device)
            if change is not None:
                scale, shift = (x.view(1, -1, *[1] * (samples.ndim - 2)) for x in change)
                samples = samples * scale + shift
            scores: Tensor = method.logits(samples)
        return scores.float()

    def _opened(self) -> tuple[Any, Statistics]:
        if self._found is None:
            # Initialising weights must not advance the caller's generator.
            with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
                torch.manual_seed(0)
                with torch.device("cpu"):
                    self._found = self._stand_in() if self.section.stands_in else self._read()
        return self._found

    def _stand_in(self) -> tuple[Any, Statistics]:
        return frozen(self._fresh()), self.statistics

    def _counted(self, samples: Tensor) -> tuple[Any, Statistics]:
        """A classifier on the device of ``samples`` without loading weights, to count its cost."""
        with torch.device(samples.device):
            return self._stand_in()

    def _read(self) -> tuple[Any, Statistics]:
        path = require(self.section.weights, self._key, _WHERE)
        opened = open_trained(path)
        method: Any = opened.method
        if not hasattr(method, "logits"):
            raise UserError(
                f"{self._key}.weights={self.section.weights} is no classifier: it should be "
                f"{_WHERE}"
            )
        if method.classes != self.classes:
            raise UserError(
                f"{self._key}.weights={self.section.weights} scores {method.classes} classes, "
                f"target.classes is {self.classes}"
            )
        _, sample = method.encoder.sample()
        if sample != self.sample:
            raise UserError(
                f"{self._key}.weights={self.section.weights} takes samples of {_shown(sample)}, "
                f"model.encoder of {_shown(self.sample)}: they must be equal"
            )
        for name, expected in self.section.shape.items():
            actual = getattr(method.encoder.section, name)
            if actual != expected:
                raise UserError(
                    f"{self._key}.{name} is {expected}, {self.section.weights} has {actual}: "
                    f"set {self._key}.{name}={actual}"
                )
        augment = opened.resolved.recipe.augment
        return frozen(method), (augment.mean, augment.std)


def _shown(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
