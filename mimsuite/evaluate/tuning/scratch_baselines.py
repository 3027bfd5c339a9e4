"""Baselines trained from scratch, which fine-tuning pretrained weights must beat.

The baseline at equal steps shows what pretraining saves in labels and tuning time. The baseline at
equal total compute, pretraining included, shows whether pretraining was worth its cost.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimsuite import config
from mimsuite.checkpoints import open_model
from mimsuite.data import open_training_set
from mimsuite.errors import UserError
from mimsuite.train.estimate import estimate

if TYPE_CHECKING:
    from mimsuite.config import Resolved


def equal_steps(recipe: Resolved) -> Resolved:
    """The tuning recipe for fresh weights, with the same number of steps.

    It uses ``optim.scratch_lr`` if that is set. Layer decay and frozen first blocks are switched
    off: they suit pretrained layers and would hold fresh ones back.
    """
    changes: dict[str, Any] = {"optim.layer_decay": None}
    if getattr(recipe.recipe.model, "freeze", False):
        changes["model.freeze"] = False
    if recipe.recipe.optim.scratch_lr is not None:
        changes |= {"optim.lr": recipe.recipe.optim.scratch_lr, "optim.lr_per_256": None}
    return config.with_overrides(recipe, changes, "from scratch")


def equal_compute(recipe: Resolved, path: str | Path) -> Resolved:
    """As :func:`equal_steps`, with more steps: as many as cost the FLOPs of pretraining and
    fine-tuning together. The share of warm-up is unchanged.

    Args:
        path: the pretrained weights, stored with their recipe and step.

    Raises:
        UserError: weights whose training cost is not known.
    """
    pretrained = open_model(path)
    if pretrained.step is None:
        raise UserError(
            f"{path}: weights without a step do not show what pretraining cost: the baseline at "
            f"equal compute needs a run directory or a checkpoint"
        )
    run, tuning = pretrained.resolved.recipe, recipe.recipe
    cost = pretrained.step * run.train.global_batch * estimate(run).flops
    samples = tuning.schedule.epochs * len(open_training_set(tuning))
    factor = 1 + cost / (samples * estimate(tuning).flops)
    schedule = {
        f"schedule.{key}": round(getattr(tuning.schedule, key) * factor, 3)
        for key in ("epochs", "warmup_epochs")
    }
    return config.with_overrides(equal_steps(recipe), schedule, "equal compute")
