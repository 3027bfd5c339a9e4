"""A recipe that reads a frozen encoder, put together with what belongs to that encoder's run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mimsuite import config
from mimsuite.config import Resolved
from mimsuite.errors import UserError

# Of the encoder, what frozen features do not depend on; all else is what it was trained with.
_FREE = ("drop_path", "fusion")
_INHERITED = ("data.channels", "augment.mean", "augment.std")


def require_images(run: Resolved, task: str) -> None:
    """Refuse a run that has no encoder of images."""
    if run.recipe.recipe.modality != "image" or run.document["model"].get("encoder") is None:
        raise UserError(
            f"{run.name or 'this model'} has no encoder of images: {task} reads image patches"
        )


def with_encoder_of(
    run: Resolved, probe: Resolved, data: str, overrides: Sequence[str]
) -> Resolved:
    """``probe`` with the run's encoder and statistics.

    Args:
        data: its data; "" = the recipe's ``data.source``.
        overrides: ``section.key=value``, laid over everything.

    Raises:
        UserError: no data.
    """
    inherited: dict[str, Any] = {
        f"model.encoder.{key}": value
        for key, value in run.document["model"]["encoder"].items()
        if key not in _FREE
    }
    for key in _INHERITED:
        part, _, name = key.partition(".")
        inherited[key] = run.document[part][name]
    composed = config.with_overrides(probe, inherited, "pretrained run")
    return with_data(composed, data, overrides)


def with_data(probe: Resolved, data: str, overrides: Sequence[str]) -> Resolved:
    """``probe`` on its data, with the command line's keys; arguments and errors as above."""
    given = {"data.source": data} if data else {}
    composed = config.with_overrides(config.with_overrides(probe, given), list(overrides))
    if not composed.recipe.data.source:
        raise UserError(f"{probe.name} names no data: give a folder with --data")
    return composed
