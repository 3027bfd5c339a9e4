"""The recipe of a dense probe, put together with what belongs to the run that it probes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mimsuite import config
from mimsuite.config import Resolved
from mimsuite.config.suggest import with_article
from mimsuite.data.dense import layout_of
from mimsuite.errors import UserError

TASK = "dense-probe"
# Of the encoder, what frozen features do not depend on; all else is what it was trained with.
_FREE = ("drop_path", "fusion")
_INHERITED = ("data.channels", "augment.mean", "augment.std")


def compose_dense(
    run: Resolved,
    recipe: str,
    data: str = "",
    overrides: Sequence[str] = (),
    *,
    smoke: bool = False,
) -> Resolved:
    """The recipe that probes a run.

    Args:
        run: recipe of the pretrained model.
        recipe: name or file of the probe's recipe; "" = that of the layout which ``data`` has.
        data: folder with dense truth; "" = the recipe's ``data.source``.
        overrides: ``section.key=value``, laid over everything.
        smoke: shrink the probe as the recipe's ``smoke:`` says; the encoder keeps its sizes.

    Raises:
        UserError: no recipe for this, no data, or a run that has no image encoder.
    """
    section = run.document["model"].get("encoder")
    if run.recipe.recipe.modality != "image" or section is None:
        raise UserError(
            f"{run.name or 'this model'} has no encoder of images: dense-probe reads image patches"
        )
    if not (recipe or data):
        raise UserError("dense-probe needs --data FOLDER, or a recipe with data.source")
    probe = config.load(recipe or f"image/dense-{layout_of(Path(data))}", smoke=smoke)
    if probe.recipe.recipe.task != TASK:
        task = with_article(probe.recipe.recipe.task)
        raise UserError(f"{probe.name} is {task} recipe, not {with_article(TASK)} recipe")
    inherited: dict[str, Any] = {
        f"model.encoder.{key}": value for key, value in section.items() if key not in _FREE
    }
    for key in _INHERITED:
        part, _, name = key.partition(".")
        inherited[key] = run.document[part][name]
    if data:
        inherited["data.source"] = data
    composed = config.with_overrides(probe, inherited, "pretrained run")
    composed = config.with_overrides(composed, list(overrides))
    if not composed.recipe.data.source:
        raise UserError(f"{probe.name} names no data: give a folder with --data")
    return composed
