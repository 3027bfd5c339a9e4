"""Probes of frozen features with their baselines, under one protocol.

Pooling, layer and hyperparameters are chosen on a stratified part of the training split. The test
split is scored once, with that choice. The baselines (the same encoder with fresh weights, raw
input, majority class) follow the same protocol.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mimsuite.cluster.peers import ALONE, Peers
from mimsuite.data.source import Source
from mimsuite.errors import DataError
from mimsuite.evaluate.baselines import VARIANTS, majority_scores, random_init
from mimsuite.evaluate.bootstrap import balancing_weights, paired_interval
from mimsuite.evaluate.features import PIXELS, FeatureSet, extract
from mimsuite.evaluate.metrics import (
    TOP5,
    accuracy,
    has_top5,
    ranks,
    right_or_wrong,
    scores,
    top5_accuracy,
)
from mimsuite.evaluate.probes import logistic
from mimsuite.evaluate.probes.knn import knn_predict, knn_scores
from mimsuite.evaluate.probes.linear import LinearGrid, search
from mimsuite.evaluate.probes.targets import knn_targets, linear_targets
from mimsuite.evaluate.scoring.scorer import scorer_of
from mimsuite.evaluate.scoring.targets import TargetScorer, fit_to
from mimsuite.evaluate.split import stratified_holdout
from mimsuite.methods import Method

if TYPE_CHECKING:
    from mimsuite.config import Resolved

Sets = dict[str, Tensor]
Predict = Callable[[Sets, Sets], tuple[Tensor, dict[str, Any]]]  # ((N, K) scores, choice)


@dataclass(frozen=True)
class ProbeData:
    """Cached features of every variant, split for probing.

    Attributes:
        train, test: variant (``pretrained``, ``random_init``, ``raw_input``) -> features by name.
        train_labels, test_labels: (N,) int64; for ``data.targets`` (N, K) float32.
        classes: K; 1 for labels that are not classes.
        parts: rows of the training samples for fitting and for validation.
        seed: seed of splits and minibatches.
        notes: remarks on the data that belong to the figures.
        train_keys: N names of the training samples.
        scorer: scorer of regression or multilabel targets; None for classes.
    """

    train: dict[str, Sets]
    test: dict[str, Sets]
    train_labels: Tensor
    test_labels: Tensor
    classes: int
    parts: tuple[Tensor, Tensor]
    seed: int
    notes: list[str] = field(default_factory=list)
    train_keys: list[str] = field(default_factory=list)
    scorer: TargetScorer | None = None


def probe_data(
    method: Method,
    resolved: Resolved,
    train: Source,
    test: Source | None = None,
    *,
    baselines: bool = False,
    seed: int = 0,
    peers: Peers = ALONE,
) -> ProbeData | None:
    """Extract all features that :func:`linear_probe` and :func:`knn` need, once.

    Args:
        method: the pretrained method, on the device to compute on.
        resolved: its recipe; the ``eval`` section configures the probe.
        test: test split; ``None``: a stratified part of ``train``.
        peers: ranks that share the extraction; the first rank does the rest alone.

    Returns:
        the features on the first rank; ``None`` on the others.

    Raises:
        DataError: no labels, one class, or fewer samples than classes.
    """
    scorer = _target_scorer(resolved, train, test)
    models = encoders(method, resolved, baselines)
    notes: list[str] = []

    def read(source: Source) -> dict[str, FeatureSet]:
        return read_encoders(models, source, resolved, pixels=baselines, peers=peers)

    of_train, of_test = read(train), {} if test is None else read(test)
    if not peers.first:
        return None
    train_sets, labels, keys = labelled_tables(of_train, train, notes)
    if scorer is None and len(torch.unique(labels)) < 2:
        raise DataError(f"{train.name} has one class in '{train.split}': nothing to tell apart")
    held_fraction = resolved.recipe.eval.validation
    if test is None:
        kept, held = stratified_holdout(_strata(labels), held_fraction, seed, "test")
        test_sets, test_labels = _rows(train_sets, held), labels[held]
        train_sets, labels = _rows(train_sets, kept), labels[kept]
        keys = [keys[row] for row in kept.tolist()]
        notes.append(f"no test split: {held_fraction:.0%} of '{train.split}' is held out as one")
    else:
        test_sets, test_labels, _ = labelled_tables(of_test, test, notes)
    parts = stratified_holdout(_strata(labels), held_fraction, seed)
    classes = 1 if scorer else int(torch.cat([labels, test_labels]).max()) + 1
    _enough(len(labels), classes, len(parts[1]), len(test_labels), train)
    return ProbeData(
        train_sets,
        test_sets,
        labels,
        test_labels,
        classes,
        parts,
        seed,
        notes,
        train_keys=keys,
        scorer=scorer,
    )


def _target_scorer(resolved: Resolved, train: Source, test: Source | None) -> TargetScorer | None:
    """Scorer of labels that are not classes; also aligns the test split's columns to training."""
    if train.targets is None:
        return None
    scorer = scorer_of(resolved)
    assert isinstance(scorer, TargetScorer)
    scorer.names = train.targets.names
    scorer.keys_from_data(train)  # refuses labels that do not vary
    if test is not None:
        fit_to(test, scorer.names, train.targets.values.shape[1])
    return scorer


def _strata(labels: Tensor) -> Tensor:
    """(N,) strata of the hold-out: classes; all zero for other labels."""
    return labels if labels.ndim == 1 else torch.zeros(len(labels), dtype=torch.int64)


def encoders(method: Method, resolved: Resolved, baselines: bool) -> dict[str, Method]:
    """``pretrained`` and, with baselines, ``random_init`` on the same device."""
    if not baselines:
        return {"pretrained": method}
    device = next(method.parameters()).device
    return {"pretrained": method, "random_init": random_init(resolved).to(device)}


def read_encoders(
    models: dict[str, Method],
    source: Source,
    resolved: Resolved,
    *,
    pixels: bool,
    peers: Peers = ALONE,
) -> dict[str, FeatureSet]:
    """Features of a source from each encoder; with ``pixels``, the first set has raw input too."""
    first = next(iter(models))
    return {
        name: extract(model, source, resolved, pixels=pixels and name == first, peers=peers)
        for name, model in models.items()
    }


def labelled_tables(
    read: dict[str, FeatureSet], source: Source, notes: list[str]
) -> tuple[dict[str, Sets], Tensor, list[str]]:
    """(variant -> features by name, (N,) labels, N keys) of the labelled samples."""
    variants: dict[str, Sets] = {}
    for variant, one in read.items():
        found = _labelled(one, source, notes)
        sets = dict(found.features)
        if PIXELS in sets:
            variants["raw_input"] = {PIXELS: sets.pop(PIXELS)}
        variants[variant] = sets
    assert found.labels is not None
    return variants, found.labels, found.keys


def linear_probe(data: ProbeData, grid: LinearGrid | None = None) -> dict[str, Any]:
    """Softmax regression on frozen features, with layer and pooling chosen by validation. For
    labels that are not classes see :func:`~mimsuite.evaluate.probes.targets.linear_targets`.

    Returns:
        ``accuracy`` and ``balanced_accuracy`` of each variant (null for variants not requested),
        with more than five classes ``top5_accuracy``,
        ``chosen`` per variant (``features``, the penalty ``C`` as in scikit-learn,
        ``validation_accuracy``), ``intervals`` of the gain over each baseline, ``right`` (per
        variant one character per test sample), ``n_train``, ``n_validation``, ``n_test``,
        ``classes``, ``seed``, ``protocol``, ``notes``.
    """
    if data.scorer is not None:
        return linear_targets(data)
    tried = grid or LinearGrid()

    def predict(train: Sets, test: Sets) -> tuple[Tensor, dict[str, Any]]:
        fitted, chosen = fit_linear(
            train, data.train_labels, data.classes, data.parts, tried, data.seed
        )
        return fitted.logits(test[chosen["features"]]), chosen

    return _result(data, predict, linear_protocol(tried, len(data.train_labels), data.parts))


def fit_linear(
    train: Sets,
    labels: Tensor,
    classes: int,
    parts: tuple[Tensor, Tensor],
    grid: LinearGrid,
    seed: int,
) -> tuple[logistic.Logistic, dict[str, Any]]:
    """The linear probe of one variant, and the choice made on validation samples.

    The grid chooses the features. Softmax regression with an L2 penalty, whose strength is chosen
    too, is then solved to its minimum on all training samples. The figure therefore depends on no
    optimizer, and other tools find the same one.

    Args:
        train: features of the training samples, by name.
        labels: (N,) their labels.
        parts: row numbers for fitting and for validation.
    """
    name = next(iter(train))
    if len(train) > 1:
        name = search(train, labels, classes, parts, grid, seed).features
    strength, validation = logistic.choose_strength(train[name], labels, classes, parts)
    chosen = {"features": name, "C": strength, "validation_accuracy": validation}
    return logistic.fit(train[name], labels, classes, strength), chosen


def linear_protocol(grid: LinearGrid, samples: int, parts: tuple[Tensor, Tensor]) -> str:
    """The protocol of :func:`fit_linear` in words."""
    return (
        f"linear: softmax regression on standardised features with an L2 penalty, at its minimum; "
        f"layer and pooling (by {len(grid.learning_rates) * len(grid.weight_decays)} AdamW heads "
        f"of {grid.steps(samples)} steps), then C, chosen on {len(parts[1])} validation samples of "
        f"the training split, then fitted on all of it; the test split was scored once"
    )


def knn(data: ProbeData, neighbours: int = 5) -> dict[str, Any]:
    """Cosine nearest neighbours; validation chooses layer and pooling. Returns as linear_probe."""
    if data.scorer is not None:
        return knn_targets(data, neighbours)

    def predict(train: Sets, test: Sets) -> tuple[Tensor, dict[str, Any]]:
        (fit, held), labels = data.parts, data.train_labels

        def right(name: str) -> float:
            table = train[name]
            guess = knn_predict(table[fit], labels[fit], table[held], neighbours, data.classes)
            return accuracy(guess, labels[held])

        figures = {name: right(name) for name in train}
        best = max(figures, key=figures.__getitem__)  # ties: the first, which is the deepest layer
        votes = knn_scores(train[best], labels, test[best], neighbours, data.classes)
        return votes, {"features": best, "validation_accuracy": figures[best]}

    return _result(
        data,
        predict,
        f"knn: majority of the {neighbours} nearest training samples by cosine similarity, ties "
        f"to the class of the most similar one; layer and pooling chosen on "
        f"{len(data.parts[1])} validation samples of the training split; the test split was "
        f"scored once",
    )


def _result(data: ProbeData, predict: Predict, protocol: str) -> dict[str, Any]:
    tables: dict[str, Tensor] = {}
    chosen: dict[str, Any] = {}
    for variant, sets in data.train.items():
        tables[variant], chosen[variant] = predict(sets, data.test[variant])
    if "random_init" in tables:
        samples = len(data.test_labels)
        tables["majority"] = majority_scores(data.train_labels, samples, data.classes)
    guesses = {name: table.argmax(1) for name, table in tables.items()}
    measured = {name: scores(guess, data.test_labels) for name, guess in guesses.items()}
    result: dict[str, Any] = {
        figure: {name: measured[name][figure] if name in measured else None for name in VARIANTS}
        for figure in ("accuracy", "balanced_accuracy")
    }
    if has_top5(data.classes):
        result[TOP5] = {
            name: top5_accuracy(ranks(tables[name], data.test_labels)) if name in tables else None
            for name in VARIANTS
        }
    return result | {
        "chosen": chosen,
        "intervals": _intervals(guesses, data.test_labels, data.seed),
        "labels": data.test_labels.tolist(),
        "right": {name: right_or_wrong(guess, data.test_labels) for name, guess in guesses.items()},
        "n_train": len(data.train_labels),
        "n_validation": len(data.parts[1]),
        "n_test": len(data.test_labels),
        "classes": data.classes,
        "seed": data.seed,
        "protocol": protocol,
        "notes": data.notes,
    }


def _intervals(guesses: dict[str, Tensor], labels: Tensor, seed: int) -> dict[str, Any]:
    """Gain of the pretrained encoder over each other variant, with its 95 % interval."""
    right = {name: guess == labels for name, guess in guesses.items()}
    ours = right.pop("pretrained")
    weights = {"accuracy": None, "balanced_accuracy": balancing_weights(labels)}
    return {
        name: {
            figure: paired_interval(ours, theirs, weights=weight, seed=seed).as_dict()
            for figure, weight in weights.items()
        }
        for name, theirs in right.items()
    }


def _labelled(found: FeatureSet, source: Source, notes: list[str]) -> FeatureSet:
    """The samples that have a label."""
    labels = torch.zeros(0) if found.labels is None else found.labels
    there = labels >= 0 if labels.ndim == 1 else ~labels.isnan().all(dim=1)
    if not bool(there.any()):
        raise DataError(f"{source.name} has no labels: a probe needs a labelled source")
    known = there.nonzero().squeeze(1)
    if len(known) == len(found):
        return found
    note = f"{len(found) - len(known)} unlabelled samples of '{source.split}' left out"
    if note not in notes:
        notes.append(note)
    return found.rows(known)


def _enough(samples: int, classes: int, validation: int, tested: int, source: Source) -> None:
    if samples < classes:
        raise DataError(
            f"{source.name} has {samples} training samples for {classes} classes: a probe needs "
            f"at least one of each"
        )
    if not validation or not tested:
        part = "validate" if tested else "test"
        raise DataError(
            f"{source.name} has too few samples: every class has one at most, so none can be held "
            f"out to {part} on"
        )


def _rows(variants: dict[str, Sets], rows: Tensor) -> dict[str, Sets]:
    return {
        variant: {name: table[rows] for name, table in sets.items()}
        for variant, sets in variants.items()
    }
