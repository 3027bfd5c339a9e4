"""`target:` of heads that learn from labels. Nothing here imports torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from mimsuite.config.keys.section import Fraction, Name, Positive, Section
from mimsuite.config.keys.shared import Recipe
from mimsuite.config.keys.teachers import LogitTeacherSection


def _is_no_kind(value: Any) -> Any:
    if value in ("regression", "multilabel"):
        raise ValueError(f"what labels are is a key of the data: set data.targets={value}")
    return value


class LabelTargetSection(Section):
    """`target:` the labels of the data source, parsed as `data.targets` says."""

    kind: Annotated[Literal["classes"], BeforeValidator(_is_no_kind)] = "classes"
    classes: Positive | None = None  # number of classes; None: that of the data source
    label_smoothing: Fraction = 0.0
    # Regression loss, on targets standardised to mean 0 and deviation 1: squared error, or Huber's
    # with delta 1, which is less sensitive to outliers
    loss: Literal["mse", "huber"] = "mse"
    mean: tuple[float, ...] | None = None  # regression: per target; None: of the training split
    # Regression: standard deviation per target; None: of the training split
    std: tuple[Annotated[float, Field(gt=0.0)], ...] | None = None
    names: tuple[Name, ...] | None = None  # names of the multilabel classes; None: the data's


class ClassTargetSection(LabelTargetSection):
    """`target:` class labels, mixed by mixup and cutmix during training."""

    mixup: Annotated[float, Field(ge=0.0)] = 0.0  # mixup's Beta parameter; 0: off
    cutmix: Annotated[float, Field(ge=0.0)] = 0.0  # cutmix's Beta parameter; 0: off
    mixup_prob: Fraction = 1.0  # probability that a pair of samples is mixed
    mixup_switch: Fraction = 0.5  # probability of cutmix if both are on
    teacher: LogitTeacherSection | None = None  # classifier to distil, beside or without labels


class LabelRecipe(Recipe):
    """A recipe whose head learns labels of any kind of `data.targets`."""

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
            raise ValueError(f"target.loss={target.loss} needs data.targets=regression")
        if len(target.mean or ()) != len(target.std or ()):
            raise ValueError("target.mean and target.std must have the same length or both be null")
        return self
