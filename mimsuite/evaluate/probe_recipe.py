"""Compose the recipe that tunes or probes a run with the keys of the run's encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mimsuite import config
from mimsuite.config import Resolved
from mimsuite.config.keys.labels import LabelRecipe
from mimsuite.config.keys.section import Key, height_width, marked
from mimsuite.config.suggest import with_article
from mimsuite.data.dense import layout_of
from mimsuite.errors import UserError
from mimsuite.evaluate.scoring.scorer import scorer_of
from mimsuite.evaluate.sources import open_splits

DENSE = "dense-probe"
_ATTENTIVE = "image/tiny-attentive"  # default for runs whose recipe names none
# Keys outside the encoder that the weights were trained with.
_INHERITED = (
    "data.channels", "augment.mean", "augment.std", "augment.spacing", "augment.intensity"
)  # fmt: skip
_FOLDS = ("data.folds", "data.fold")


def compose(
    run: Resolved,
    recipe: str,
    task: str,
    data: str = "",
    overrides: Sequence[str] = (),
    *,
    smoke: bool = False,
) -> Resolved:
    """The recipe that tunes or probes a run.

    Args:
        run: recipe of the pretrained model.
        recipe: name or file of the recipe; "": the one that the run's recipe names, or for a dense
            probe the one for the layout of ``data``.
        task: task that the recipe must have: ``finetune``, ``linear-probe``, ``attentive-probe`` or
            ``dense-probe``.
        data: labelled source; "": the recipe's, otherwise the run's.
        overrides: ``section.key=value``, applied last.
        smoke: apply the ``smoke:`` sizes; the encoder keeps the sizes of its weights.

    Raises:
        UserError: no recipe, a recipe for another task, no data, or not an image encoder.
        DataError: the source has no labels, or only one class.
    """
    if task == DENSE:
        require_images(run, task)
    probe = load_for(task, recipe or _default(run, task, data), smoke=smoke)
    if task == DENSE:
        return with_encoder_of(run, probe, data, overrides)
    tuning = with_encoder_of(run, probe, data, overrides, Key.TUNABLE, _of_data(run, probe, data))
    if tuning.recipe.data.targets != "classes" and not isinstance(tuning.recipe, LabelRecipe):
        raise UserError(
            f"data.targets={tuning.recipe.data.targets}: {tuning.name} learns no labels of "
            f"samples; leave it at classes"
        )
    scorer = scorer_of(tuning)
    train, _ = open_splits(tuning, labelled=scorer.labelled)
    given = {text.partition("=")[0] for text in overrides}
    told = {key: value for key, value in scorer.keys_from_data(train).items() if key not in given}
    return config.with_overrides(tuning, told, "data") if told else tuning


def load_for(
    task: str, recipe: str, overrides: Sequence[str] = (), *, smoke: bool = False
) -> Resolved:
    """Load a recipe; raise a ``UserError`` if it is for another task."""
    found = config.load(recipe, overrides, smoke=smoke)
    if found.recipe.recipe.task != task:
        other = with_article(found.recipe.recipe.task)
        raise UserError(f"{found.name} is {other} recipe, not {with_article(task)} recipe")
    return found


def require_images(run: Resolved, task: str) -> None:
    """Refuse a run without an image encoder."""
    if run.recipe.recipe.modality != "image" or run.document["model"].get("encoder") is None:
        raise UserError(
            f"{run.name or 'this model'} has no image encoder: {task} reads image patches"
        )


def with_encoder_of(
    run: Resolved,
    probe: Resolved,
    data: str,
    overrides: Sequence[str],
    own: Key = Key.TRAINING,
    inherited: dict[str, Any] | None = None,
) -> Resolved:
    """``probe`` with the run's encoder and statistics.

    Args:
        data: source; "": the recipe's ``data.source``.
        overrides: ``section.key=value``, applied last.
        own: mark of the encoder keys that the probe's recipe decides.
        inherited: further values taken from the run, by dotted key.

    Raises:
        UserError: no data.
    """
    decided = marked(type(run.recipe.model.encoder), own)
    probe = _with_kind_of(run, probe)
    encoder = {
        f"model.encoder.{key}": value
        for key, value in run.document["model"]["encoder"].items()
        if key not in decided
    }
    known = {
        key: _value(run, key)
        for key in run.origins
        if any(f"{key}.".startswith(f"{part}.") for part in _INHERITED) and _has(probe, key)
    }
    taken = encoder | known | (inherited or {})
    return with_data(config.with_overrides(probe, taken, "pretrained run"), data, overrides)


def _with_kind_of(run: Resolved, probe: Resolved) -> Resolved:
    """``probe`` without the encoder keys that the run's kind of encoder does not have."""
    known = type(run.recipe.model.encoder).model_fields
    model = probe.document["model"]
    encoder = {key: value for key, value in model["encoder"].items() if key in known}
    document = {**probe.document, "model": {**model, "encoder": encoder}}
    if "intensity" in document["augment"] and "intensity" in run.document["augment"]:
        ours = run.document["augment"]["intensity"]  # kinds of rules have different keys
        document["augment"] = {**document["augment"], "intensity": ours}
    return replace(probe, document=document)


def with_data(probe: Resolved, data: str, overrides: Sequence[str]) -> Resolved:
    """``probe`` with its data and overrides; arguments and errors as :func:`with_encoder_of`."""
    given = {"data.source": data} if data else {}
    composed = config.with_overrides(config.with_overrides(probe, given), list(overrides))
    if not (composed.recipe.data.source or composed.recipe.data.mixture):
        raise UserError(f"{probe.name} names no data: give a folder with --data")
    return composed


def _default(run: Resolved, task: str, data: str) -> str:
    """Name of the default recipe."""
    if task == DENSE:
        if not data:
            raise UserError("dense-probe needs --data FOLDER, or a recipe with data.source")
        return f"image/dense-{layout_of(Path(data))}"
    name: str = getattr(run.recipe.recipe, task.replace("-", "_"))
    if not name and task == "attentive-probe":
        return _ATTENTIVE
    if not name:
        raise UserError(f"{run.name} names no {task} recipe: give one with --recipe")
    return name


def _of_data(run: Resolved, tuning: Resolved, data: str) -> dict[str, Any]:
    """Data keys that a tuning recipe takes from the run."""
    source = data or tuning.recipe.data.source or run.recipe.data.source
    taken: dict[str, Any] = {"data.source": source}
    if source == run.recipe.data.source and run.recipe.data.folds:
        taken |= {key: _value(run, key) for key in _FOLDS}  # same data: keep the fold held out
    if (resize := getattr(tuning.recipe.augment, "eval_resize", None)) is not None:
        # keep the ratio of resize to crop when the run's image size differs
        short, other = (min(height_width(r.recipe.model.encoder.image_size)) for r in (run, tuning))
        taken["augment.eval_resize"] = round(resize * short / other)
    return taken


def _value(resolved: Resolved, key: str) -> Any:
    found: Any = resolved.document
    for name in key.split("."):
        found = found[name]
    return found


def _has(resolved: Resolved, key: str) -> bool:
    try:
        _value(resolved, key)
    except (KeyError, TypeError):
        return False
    return True
