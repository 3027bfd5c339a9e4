"""`target:` of classifiers: what a head learns from labels. Nothing here imports torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from mimsuite.config.keys.section import Fraction, Positive, Section
from mimsuite.config.keys.shared import Recipe
from mimsuite.config.keys.teachers import LogitTeacherSection


def _is_no_kind(value: Any) -> Any:
    if value in ("regression", "multilabel"):
        raise ValueError(f"what labels are is a key of the data: set data.targets={value}")
    return value


class LabelTargetSection(Section):
    """`target:` the labels of the data source, as `data.targets` reads them."""

    kind: Annotated[Literal["classes"], BeforeValidator(_is_no_kind)] = "classes"
    classes: Positive | None = None  # None: as many as the data source has
    label_smoothing: Fraction = 0.0
    # Of data.targets=regression, on targets of mean 0 and deviation 1: squared error, or Huber's
    # with delta 1, which outliers move less
    loss: Literal["mse", "huber"] = "mse"
    mean: tuple[float, ...] | None = None  # of each number; None: that of the training split
    std: tuple[Annotated[float, Field(gt=0.0)], ...] | None = None  # likewise
    names: tuple[str, ...] | None = (
        None  # of the labels of data.targets=multilabel; None: the data's
    )


class ClassTargetSection(LabelTargetSection):
    """`target:` labels, mixed while training."""

    mixup: Annotated[float, Field(ge=0.0)] = 0.0  # parameter of its Beta distribution; 0: off
    cutmix: Annotated[float, Field(ge=0.0)] = 0.0  # likewise
    mixup_prob: Fraction = 1.0  # that a pair of samples is mixed at all
    mixup_switch: Fraction = 0.5  # probability of cutmix where both are on
    teacher: LogitTeacherSection | None = None  # learn from a classifier's scores too, or alone


class LabelRecipe(Recipe):
    """A recipe whose head learns labels, of any `data.targets`."""

    @model_validator(mode="after")
    def _target_fits_the_labels(self) -> LabelRecipe:
        kind, target = self.data.targets, self.target
        keys = {"multilabel": ("label_smoothing",), "classes": ()}.get(
            kind, ("label_smoothing", "mixup", "cutmix")
        )
        wrong = [key for key in keys if getattr(target, key, 0)]
        if wrong:
            names = " and ".join(f"target.{key}" for key in wrong)
            zero = " ".join(f"target.{key}=0" for key in wrong)
            raise ValueError(f"{names}: not with data.targets={kind}; set {zero}")
        if target.loss != "mse" and kind != "regression":
            raise ValueError(f"target.loss={target.loss} is of data.targets=regression only")
        if len(target.mean or ()) != len(target.std or ()):
            raise ValueError("target.mean and target.std have as many numbers, or are both null")
        return self
