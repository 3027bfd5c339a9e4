"""A trained classifier as a teacher: its scores of the student's own samples.

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

_WHERE = "a classifier that mimsuite fine-tuned, or published weights of one that it reads"


class LogitTeacher:
    """A frozen classifier of the student's classes, asked about what the student is shown.

    Like every teacher it is no module, and opens its weights when they are first needed.

    Args:
        section: whose scores, and how much they count.
        classes: of the student.
        sample: shape of one sample, which must be the teacher's too.
        statistics: mean and deviation by which the student's samples are normalised.
        fresh: makes a classifier of its shape, without trained weights.
        key: where in the recipe the section is, for messages.
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
        return self  # frozen: a moving average of the student shares it

    def open(self) -> list[str]:
        """Read its weights now; returns lines for people.

        Raises:
            UserError: no weights, no classifier, other classes or another size of samples.
        """
        self._opened()
        if self.section.stands_in:
            return ["TEACHER WITH RANDOM WEIGHTS: it only stands in, nothing is learnt from it"]
        return [f"teacher: {self.section.weights}, scores of {self.classes} classes"]

    def blend(self, samples: Tensor, target: Tensor) -> Tensor:
        """Targets (B, K) of which ``section.weight`` is the teacher's probabilities."""
        told = self.logits(samples).softmax(dim=-1)
        return torch.lerp(target, told, self.section.weight)

    def logits(self, samples: Tensor) -> Tensor:
        """(B, K) float32 of the student's normalised samples, without gradient."""
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
            # Fresh weights must not move the caller's generator.
            with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
                torch.manual_seed(0)
                with torch.device("cpu"):
                    self._found = self._stand_in() if self.section.stands_in else self._read()
        return self._found

    def _stand_in(self) -> tuple[Any, Statistics]:
        return frozen(self._fresh()), self.statistics

    def _counted(self, samples: Tensor) -> tuple[Any, Statistics]:
        """One without values of its weights, to count what it costs."""
        with torch.device(samples.device):
            return self._stand_in()

    def _read(self) -> tuple[Any, Statistics]:
        path = require(self.section.weights, self._key, _WHERE)
        opened = open_trained(path)
        method: Any = opened.method
        if not hasattr(method, "logits"):
            raise UserError(f"{self._key}.weights={self.section.weights}: no classifier: {_WHERE}")
        if method.classes != self.classes:
            raise UserError(
                f"{self._key}.weights={self.section.weights} scores {method.classes} classes, "
                f"target.classes is {self.classes}"
            )
        _, sample = method.encoder.sample()
        if sample != self.sample:
            raise UserError(
                f"{self._key}.weights={self.section.weights} takes samples of {_shown(sample)}, "
                f"model.encoder of {_shown(self.sample)}: they must see the same"
            )
        for name, said in self.section.shape.items():
            own = getattr(method.encoder.section, name)
            if own != said:
                raise UserError(
                    f"{self._key}.{name} is {said}, {self.section.weights} has {own}: "
                    f"set {self._key}.{name}={own}"
                )
        augment = opened.resolved.recipe.augment
        return frozen(method), (augment.mean, augment.std)


def _shown(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
