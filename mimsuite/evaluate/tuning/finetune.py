"""Training on labels from a run: fine-tuning, and the published linear-probe protocol.

What is tuned, a classifier or another, is a method like any other and is trained by
:func:`mimsuite.train.run.train`; its :mod:`~mimsuite.evaluate.scoring.scorer` makes the figures.
What belongs to the run (the encoder's sizes, channels, normalisation) is taken from it; everything
else is the recipe's. There is nothing to choose afterwards, so no validation part is needed: the
test split is scored once, by the weights of the last step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimsuite import config
from mimsuite.config.keys.labels import LabelRecipe
from mimsuite.config.keys.section import height_width
from mimsuite.config.suggest import with_article
from mimsuite.data.source import Source
from mimsuite.errors import UserError
from mimsuite.evaluate.baselines import VARIANTS
from mimsuite.evaluate.scoring.scorer import Scorer, scorer_of
from mimsuite.evaluate.sources import open_splits, say_unused, unused_of
from mimsuite.evaluate.tuning.lr_search import Trial, choose_rate, with_rate
from mimsuite.evaluate.tuning.scratch_baselines import equal_compute, equal_steps
from mimsuite.methods import Method

if TYPE_CHECKING:
    from mimsuite.config import Resolved

# Of the encoder, what the tuning recipe decides; all else is what the weights were trained with.
_TUNED = (
    *("drop_path", "trained_positions", "relative_positions", "fusion"),
    *("points", "groups", "group_size"),
)
_ATTENTIVE = "image/tiny-attentive"  # for runs whose recipe names none
# Beside the encoder, what the weights were trained with.
_INHERITED = ("data.channels", "augment.mean", "augment.std")
_FOLDS = ("data.folds", "data.fold")
_LOOK = 8  # samples of each split that are looked at for what is not used


def compose(
    run: Resolved,
    recipe: str,
    task: str,
    data: str = "",
    overrides: Sequence[str] = (),
    *,
    smoke: bool = False,
) -> Resolved:
    """The recipe that tunes a run.

    Args:
        run: recipe of the pretrained model.
        recipe: name or file of the tuning recipe; "" = the one that the run's recipe names.
        task: ``finetune``, ``linear-probe`` or ``attentive-probe``: what the recipe must be for.
        data: source with what is to be learnt; "" = the tuning recipe's, or else the run's.
        overrides: ``section.key=value``, laid over everything.
        smoke: shrink the schedule as the tuning recipe's ``smoke:`` says; the encoder keeps the
            sizes of its weights.

    Raises:
        UserError: no recipe named, or one for another task.
        DataError: the source has no labels or one class.
    """
    about = run.recipe.recipe
    named = {
        "finetune": about.finetune,
        "linear-probe": about.linear_probe,
        "attentive-probe": about.attentive_probe or _ATTENTIVE,
    }[task]
    if not (recipe or named):
        raise UserError(f"{run.name} names no {task} recipe: give one with --recipe")
    tuning = config.load(recipe or named, smoke=smoke)
    if tuning.recipe.recipe.task != task:
        raise UserError(
            f"{tuning.name} is {with_article(tuning.recipe.recipe.task)} recipe, not "
            f"{with_article(task)} recipe"
        )
    encoder = {
        f"model.encoder.{key}": value
        for key, value in run.document["model"]["encoder"].items()
        if key not in _TUNED
    }
    source = data or tuning.recipe.data.source or run.recipe.data.source
    same = source == run.recipe.data.source  # then what training has not seen stays unseen
    inherited = {
        "data.source": source,
        **{key: _value(run, key) for key in _INHERITED if _has(tuning, key) and _has(run, key)},
        **{key: _value(run, key) for key in _FOLDS if same and run.recipe.data.folds},
    }
    if _has(tuning, "augment.eval_resize"):
        inherited["augment.eval_resize"] = _eval_resize(tuning, run)
    tuning = config.with_overrides(tuning, {**encoder, **inherited}, "pretrained run")
    tuning = config.with_overrides(tuning, list(overrides))
    _require_learnable(tuning)
    scorer = scorer_of(tuning)
    train, _ = open_splits(tuning, labelled=scorer.labelled)
    given = {text.partition("=")[0] for text in overrides}
    told = {key: value for key, value in scorer.told_by(train).items() if key not in given}
    return config.with_overrides(tuning, told, "data") if told else tuning


def _require_learnable(tuning: Resolved) -> None:
    """Refuse labels that are no classes where a recipe learns something else."""
    kind = tuning.recipe.data.targets
    if kind != "classes" and not isinstance(tuning.recipe, LabelRecipe):
        raise UserError(
            f"data.targets={kind}: {tuning.name} learns no labels of samples; leave it at classes"
        )


@dataclass(frozen=True)
class Tuned:
    """A trained method and how it did on each sample of the test split."""

    run_dir: Path
    steps: int
    judged: list[Any]


def finetune(
    path: str | Path,
    recipe: Resolved,
    out: Path,
    *,
    baselines: bool = False,
    compute: bool = False,
    rates: Sequence[float] | Mapping[str, float] = (),
    **options: Any,
) -> dict[str, Any]:
    """Fine-tune pretrained weights, and the same recipe from scratch, see :mod:`.scratch`.

    Args:
        path: run, checkpoint or weights file.
        recipe: from :func:`compose`.
        out: folder for the run directories, called as the results are.
        baselines: train from scratch for as many steps.
        compute: train from scratch at equal total compute.
        rates: factors of each one's learning rate to choose from on a held-out fifth of the
            training split, each for itself; or the rates themselves, by the name of the result.
        options: ``resume`` (``never`` or ``auto``), ``stop`` and ``quiet`` of
            :func:`mimsuite.train.run.train`, for all.

    Returns:
        every figure of the scorer (``figures``; of a classifier ``accuracy`` and
        ``balanced_accuracy``) of ``pretrained``, ``from_scratch`` and
        ``from_scratch_equal_compute`` (null where not asked for), ``intervals`` of the gain,
        ``chosen`` (rates tried and taken), of a classifier ``right`` (one character a test
        sample) and ``labels`` of the same samples, ``steps``,
        ``n_train``, ``n_test``, ``recipe``, ``runs``, ``protocol``.

    Raises:
        UserError: no test split, or weights that do not fit; and all that training raises.
    """
    scorer = scorer_of(recipe)
    train, test = _splits(recipe, scorer)
    options |= _looked_at(recipe, train, test)
    trained = {"pretrained": recipe}
    if baselines:
        trained["from_scratch"] = equal_steps(recipe)
    if compute:
        trained["from_scratch_equal_compute"] = equal_compute(recipe, path)
    tuned, chosen = {}, {}
    for name, one in list(trained.items()):
        weights = path if name == "pretrained" else None
        if isinstance(rates, Mapping):
            one = with_rate(one, rates[name])
        elif rates:
            trial = _trial(weights, scorer, options)
            choice = choose_rate(one, rates, out / "rates" / name, trial, scorer.main_figure)
            one, chosen[name] = with_rate(one, choice.lr), choice.as_dict()
        trained[name] = one
        tuned[name] = train_and_score(one, out / name, weights, test, options)
    names = ("pretrained", "from_scratch", "from_scratch_equal_compute")
    result = _result(recipe, tuned, names, train, _protocol(trained, bool(chosen)), scorer)
    return result | ({"chosen": chosen} if chosen else {})


def _protocol(trained: dict[str, Resolved], chosen: bool) -> str:
    """How the figures were made, in words."""
    words = [f"fine-tuning of all weights at rate {trained['pretrained'].recipe.lr:g}"]
    for name, one in trained.items():
        if name != "pretrained":
            longer = one.recipe.schedule.epochs / trained["pretrained"].recipe.schedule.epochs
            steps = "the same steps" if name == "from_scratch" else f"{longer:.3g} times the steps"
            words.append(f"{name}: fresh weights, {steps}, no layer decay, rate {one.recipe.lr:g}")
    if chosen:
        words.append("rates were chosen on a fifth of the training split that was held out")
    words.append("the last step's weights were scored once on the test split")
    return "; ".join(words)


def _trial(weights: str | Path | None, scorer: Scorer, options: dict[str, Any]) -> Trial:
    def trial(recipe: Resolved, out: Path, held: Source) -> float:
        judged = train_and_score(recipe, out, weights, held, options).judged
        return scorer.measure(judged)[scorer.main]

    return trial


def trained_probe(
    path: str | Path, recipe: Resolved, out: Path, *, baselines: bool = False, **options: Any
) -> dict[str, Any]:
    """A published probe, linear or attentive: a head trained by a recipe on the frozen encoder.

    Arguments and errors as in :func:`finetune`; the figures have the names of
    :func:`mimsuite.evaluate.linear_probe` (``raw_input`` has no such protocol and stays null).
    """
    kind = recipe.recipe.recipe.task.removesuffix("-probe")
    scorer = scorer_of(recipe)
    train, test = _splits(recipe, scorer)
    options |= _looked_at(recipe, train, test)
    tuned = {"pretrained": train_and_score(recipe, out / "pretrained", path, test, options)}
    if baselines:
        tuned["random_init"] = train_and_score(recipe, out / "random_init", None, test, options)
    result = _result(
        recipe,
        tuned,
        VARIANTS if scorer.labelled else VARIANTS[:3],
        train,
        f"{kind}: {recipe.name} on the frozen encoder, trained by {recipe.recipe.optim.name}; the "
        f"last step's head was scored once on the test split",
        scorer,
    )
    if baselines and (guess := scorer.without_looking(train, tuned["pretrained"].judged)):
        name, judged = guess
        for figure, value in scorer.measure(judged).items():
            result[figure][name] = value
    return result


def _value(resolved: Resolved, key: str) -> Any:
    section, _, name = key.partition(".")
    return resolved.document[section][name]


def _has(resolved: Resolved, key: str) -> bool:
    section, _, name = key.partition(".")
    return name in resolved.document[section]


def _eval_resize(tuning: Resolved, run: Resolved) -> int | None:
    """The tuning recipe's resize before the centre crop, in proportion to the run's image size."""
    resize = tuning.recipe.augment.eval_resize
    if resize is None:
        return None
    short = min(height_width(tuning.recipe.model.encoder.image_size))
    return round(resize * min(height_width(run.recipe.model.encoder.image_size)) / short)


def _splits(recipe: Resolved, scorer: Scorer) -> tuple[Source, Source]:
    train, test = open_splits(recipe, labelled=scorer.labelled)
    if test is None:
        raise UserError(
            f"{train.name} has no split '{recipe.recipe.eval.split}' to score on: add one, or name "
            f"the split to score with eval.split=NAME"
        )
    return train, test


def _looked_at(recipe: Resolved, train: Source, test: Source) -> dict[str, Any]:
    """Look once, at a few samples of both splits, for what is not used: options of training."""
    say_unused(recipe, test, _LOOK)
    return {"unused": unused_of(recipe, train, _LOOK)}  # each training says it in its own log


def train_and_score(
    recipe: Resolved,
    out: Path,
    weights: str | Path | None,
    test: Source,
    options: dict[str, Any],
) -> Tuned:
    """Train in the folder ``out``, from ``weights`` or fresh, and judge each sample of ``test``."""
    from mimsuite.checkpoints import initialise
    from mimsuite.train.run import train

    start: Callable[[Method], list[str]] | None = None
    if weights is not None:
        start = lambda method: initialise(method, weights)  # noqa: E731
    done = train(recipe, out, initialise=start, **options)
    judged = scorer_of(recipe).collect(done.method, test, options.get("stop"))
    return Tuned(done.run_dir, done.step, judged)


def _result(
    recipe: Resolved,
    tuned: dict[str, Tuned],
    variants: Sequence[str],
    train: Source,
    protocol: str,
    scorer: Scorer,
) -> dict[str, Any]:
    ours = tuned["pretrained"]
    measured = {name: scorer.measure(one.judged) for name, one in tuned.items()}
    gains = {
        name: scorer.gains(ours.judged, one.judged)
        for name, one in tuned.items()
        if name != "pretrained"
    }
    figures: dict[str, Any] = {
        figure.name: {
            name: measured[name][figure.name] if name in measured else None for name in variants
        }
        for figure in scorer.figures
    }
    return figures | {
        **scorer.described(),
        "intervals": gains,
        **scorer.details({name: one.judged for name, one in tuned.items()}),
        "steps": ours.steps,
        "n_train": len(train),
        "n_test": len(ours.judged),
        "seed": recipe.recipe.train.seed,
        "recipe": recipe.name,
        "runs": {name: str(one.run_dir) for name, one in tuned.items()},
        "protocol": protocol,
        "notes": [],
    }
