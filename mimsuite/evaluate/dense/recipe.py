"""The recipe of a dense probe, put together with what belongs to the run that it probes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mimsuite import config
from mimsuite.config import Resolved
from mimsuite.config.suggest import with_article
from mimsuite.data.dense import layout_of
from mimsuite.errors import UserError
from mimsuite.evaluate.frozen_recipe import require_images, with_encoder_of

TASK = "dense-probe"


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
    require_images(run, TASK)
    if not (recipe or data):
        raise UserError("dense-probe needs --data FOLDER, or a recipe with data.source")
    probe = config.load(recipe or f"image/dense-{layout_of(Path(data))}", smoke=smoke)
    if probe.recipe.recipe.task != TASK:
        task = with_article(probe.recipe.recipe.task)
        raise UserError(f"{probe.name} is {task} recipe, not {with_article(TASK)} recipe")
    return with_encoder_of(run, probe, data, overrides)
