"""Train on labels from a pretrained run: fine-tuning, and published probe protocols.

A classifier, or another supervised model, is a method like any other, trained by
:func:`mimsuite.train.run.train`; its :mod:`~mimsuite.evaluate.scoring.scorer` computes the figures.
Nothing is chosen afterwards, so no validation part is needed: the weights of the last step are
scored once on the test split.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimsuite.console import warn
from mimsuite.data.packing.input_range import InputRange
from mimsuite.data.source import Source
from mimsuite.data.views import views_of
from mimsuite.errors import UserError
from mimsuite.evaluate.baselines import VARIANTS
from mimsuite.evaluate.scoring.scorer import Scorer, scorer_of
from mimsuite.evaluate.sources import open_splits, say_unused, unused_of
from mimsuite.evaluate.tuning.lr_search import Trial, choose_rate, with_rate
from mimsuite.evaluate.tuning.scratch_baselines import equal_compute, equal_steps
from mimsuite.methods import Method

if TYPE_CHECKING:
    from mimsuite.config import Resolved
_LOOK = 8  # samples of each split that are looked at for what is not used


@dataclass(frozen=True)
class Tuned:
    """A trained method and its judgements on the test split."""

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
    """Fine-tune pretrained weights, with baselines from scratch (:mod:`.scratch_baselines`).

    Args:
        path: run, checkpoint or weights file.
        recipe: from :func:`~mimsuite.evaluate.probe_recipe.compose`.
        out: folder for the run directories, which are named like the results.
        baselines: also train from scratch for the same number of steps.
        compute: also train from scratch at equal total compute.
        rates: factors of the learning rate; each variant chooses one on a held-out fifth of the
            training split. Or a learning rate for each variant, by name.
        options: ``resume`` (``never`` or ``auto``), ``stop`` and ``quiet`` of
            :func:`mimsuite.train.run.train`, for all variants.

    Returns:
        every figure of the scorer (``figures``; for a classifier ``accuracy`` and
        ``balanced_accuracy``) of ``pretrained``, ``from_scratch`` and
        ``from_scratch_equal_compute`` (null if not requested), ``intervals`` of the gain,
        ``chosen`` (rates tried and chosen), for a classifier ``right`` (one character per test
        sample) and ``labels`` of the same samples, ``steps``,
        ``n_train``, ``n_test``, ``recipe``, ``runs``, ``protocol``.

    Raises:
        UserError: no test split, or weights that do not fit; also the errors of training.
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
    """The protocol of the figures in words."""
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
    """A published probe, linear or attentive: train a head on the frozen encoder by a recipe.

    Arguments and errors as in :func:`finetune`. Figures are named as in
    :func:`mimsuite.evaluate.linear_probe`; ``raw_input`` is null, since no protocol covers it.
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


def _splits(recipe: Resolved, scorer: Scorer) -> tuple[Source, Source]:
    train, test = open_splits(recipe, labelled=scorer.labelled)
    if test is None:
        raise UserError(
            f"{train.name} has no split '{recipe.recipe.eval.split}' to score on: add one, name "
            f"the split to score with eval.split=NAME, or hold out a fifth with data.folds=5"
        )
    return train, test


def _looked_at(recipe: Resolved, train: Source, test: Source) -> dict[str, Any]:
    """Look once, at a few samples of both splits, for what is not used and for values in another
    unit: options of training."""
    say_unused(recipe, test, _LOOK)
    values = InputRange(views_of(recipe.recipe))
    unused = unused_of(recipe, train, _LOOK, values.add)  # each training says it in its own log
    for line in values.warnings(train.name):
        warn(line)
    return {"unused": unused}


def train_and_score(
    recipe: Resolved,
    out: Path,
    weights: str | Path | None,
    test: Source,
    options: dict[str, Any],
) -> Tuned:
    """Train in the folder ``out``, from ``weights`` or from scratch, and judge ``test``."""
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
