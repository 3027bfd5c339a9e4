"""Composes the recipe of a dictionary with the encoder's sections."""

from __future__ import annotations

from collections.abc import Sequence

from mimsuite.config import Resolved
from mimsuite.errors import UserError
from mimsuite.evaluate.probe_recipe import load_for, require_images, with_data, with_encoder_of

TASK = "dictionary"
DEFAULT = "image/dictionary-topk"


def compose_dictionary(
    model: str,
    recipe: str = "",
    data: str = "",
    overrides: Sequence[str] = (),
    *,
    smoke: bool = False,
) -> Resolved:
    """The recipe that trains a dictionary.

    Args:
        model: run, checkpoint or weights file; "" where the recipe has a teacher.
        recipe: name or file; "" = :data:`DEFAULT`.
        data: "" = the recipe's ``data.source``, else the run's training data.
        overrides: ``section.key=value``, with precedence over everything else.
        smoke: apply the recipe's ``smoke:`` section; the encoder keeps its sizes.

    Raises:
        UserError: the recipe has another task, the run has no encoder of images, there are both a
            run and a teacher or neither, or there is no data.
    """
    # Overrides are applied before the encoder's keys too, as an overridden kind decides other keys.
    found = load_for(TASK, recipe or DEFAULT, overrides, smoke=smoke)
    if found.recipe.model.teacher is not None:
        if model:
            raise UserError(
                f"{found.name} reads model.teacher: leave out {model}, or set model.teacher=null"
            )
        return with_data(found, data, overrides)
    if not model:
        raise UserError(f"{found.name} has no model.teacher: give a RUN, as in dictionary RUN")
    from mimsuite.checkpoints import open_model

    run = open_model(model).resolved
    require_images(run, TASK)
    data = data or found.recipe.data.source or run.recipe.data.source
    return with_encoder_of(run, found, data, overrides)
