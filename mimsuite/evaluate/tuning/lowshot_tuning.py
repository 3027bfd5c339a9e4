"""Fine-tune with few labels per class, on the draws of the low-shot probes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mimsuite import config
from mimsuite.data import open_training_set
from mimsuite.data.sources.few import Amount, text_of
from mimsuite.errors import UserError
from mimsuite.evaluate.probes.lowshot import DRAWS, draw_numbers, summary
from mimsuite.evaluate.tuning.finetune import finetune

if TYPE_CHECKING:
    from mimsuite.config import Resolved

_FEWEST_STEPS = 100  # with one label per class an epoch is a single step


def low_shot_finetune(
    path: str | Path,
    recipe: Resolved,
    amounts: Sequence[Amount],
    out: Path,
    *,
    seed: int = 0,
    draws: int = DRAWS,
    baselines: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Fine-tune once for each amount and draw; with ``baselines`` also from scratch.

    Args:
        path: run, checkpoint or weights file.
        recipe: from :func:`~mimsuite.evaluate.compose`; its ``data.per_class`` is replaced.
        amounts: as in :func:`~mimsuite.evaluate.low_shot`, with the same draws.
        out: folder for the runs, ``AMOUNT/draw-NUMBER/...``.
        options: as in :func:`~mimsuite.evaluate.tuning.finetune`.

    Returns:
        amount -> :func:`~mimsuite.evaluate.probes.lowshot.summary` of ``pretrained`` and
        ``from_scratch``; and ``protocol`` in words.

    Raises:
        UserError: the recipe does not learn classes; also the errors of fine-tuning.
    """
    found: dict[str, Any] = {}
    for amount in amounts:
        text = text_of(amount)
        right: dict[str, list[torch.Tensor]] = {}
        for number in draw_numbers(seed, draws):
            folder = out / text.replace("%", "-percent") / f"draw-{number}"
            one = few_labels(recipe, amount, number)
            result = finetune(path, one, folder, baselines=baselines, **options)
            if "right" not in result:
                raise UserError(f"{recipe.name} learns no classes: there are no labels to save")
            for name, marks in result["right"].items():
                right.setdefault(name, []).append(torch.tensor([mark == "1" for mark in marks]))
        labels = torch.tensor(result["labels"])
        found[text] = summary({name: torch.stack(one) for name, one in right.items()}, labels)
    protocol = (
        f"fine-tuning of all weights by {recipe.name}, the draw's number as train.seed; batches no "
        f"larger than the labelled samples, {_FEWEST_STEPS} steps at least"
    )
    return found | {"protocol": protocol}


def few_labels(recipe: Resolved, amount: Amount, number: int) -> Resolved:
    """The tuning recipe for one draw: smaller batches and more epochs if samples are few; the share
    of warm-up is unchanged."""
    few = config.with_overrides(
        recipe, {"data.per_class": amount, "train.seed": number}, "low-shot"
    )
    samples = len(open_training_set(few.recipe))
    batch = min(few.recipe.train.global_batch, samples)
    schedule = few.recipe.schedule
    factor = max(1.0, _FEWEST_STEPS / (schedule.epochs * (samples // batch)))
    micro = few.recipe.train.micro_batch
    changes = {
        "train.global_batch": batch,
        "train.micro_batch": None if isinstance(micro, int) and batch % micro else micro,
        "schedule.epochs": schedule.epochs * factor,
        "schedule.warmup_epochs": schedule.warmup_epochs * factor,
    }
    return config.with_overrides(few, changes, "low-shot")
