"""A linear probe trained on clean samples and tested on corrupted ones.

The probe is that of :func:`mimsuite.evaluate.linear_probe`; no choice is made on corrupted samples.
Test samples are read once: every corruption is applied to each batch, for every encoder.

Letters: N test samples, L levels (corruption x severity), D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.console import warn
from mimsuite.data import eval_loader, views_of
from mimsuite.data.corruptions import Corruption, corrupt, corruptions_of
from mimsuite.data.source import Source
from mimsuite.errors import DataError
from mimsuite.evaluate.baselines import VARIANTS
from mimsuite.evaluate.bootstrap import balancing_weights, paired_interval
from mimsuite.evaluate.features import PIXELS, feature
from mimsuite.evaluate.probes.linear import LinearGrid
from mimsuite.evaluate.probes.logistic import Logistic
from mimsuite.evaluate.probes.probe import (
    encoders,
    fit_linear,
    labelled_tables,
    linear_protocol,
    read_encoders,
)
from mimsuite.evaluate.split import stratified_holdout
from mimsuite.methods import Method, evaluating

if TYPE_CHECKING:
    from mimsuite.config import Resolved

SEVERITIES = (1, 2, 3)
Level = tuple[Corruption, int] | None  # None: clean
Right = dict[str, Tensor]  # variant -> (N,) float64, 1 = right; a mean if over several levels


@dataclass(frozen=True)
class Probe:
    """Trained probe of one variant: the name of its features, and its classifier."""

    features: str
    classifier: Logistic


def robustness(
    method: Method,
    resolved: Resolved,
    train: Source,
    test: Source,
    *,
    shifted: Source | None = None,
    baselines: bool = False,
    seed: int = 0,
    grid: LinearGrid | None = None,
) -> dict[str, Any]:
    """Accuracy on clean samples, and by corruption and severity.

    Args:
        method: the pretrained method, on the device to compute on.
        resolved: its recipe.
        shifted: a source with the same classes in another style; matched by class name.
        seed: seed of the validation split and of all corruptions.

    Returns:
        ``clean``, ``corrupted`` (all levels together) and, if given, ``shifted``: figures, which
        are ``accuracy`` and ``balanced_accuracy`` of each variant and the ``intervals`` of the gain
        of ``pretrained``; ``corruptions`` -> name -> ``unit`` and ``severities``, three figures
        with their ``strength``; ``chosen``, ``n_train``, ``n_test``, ``classes``, ``seed``,
        ``protocol``, ``notes``.

    Raises:
        DataError: no labels.
        UserError: the modality has no corruptions.
    """
    known = corruptions_of(resolved.recipe.recipe.modality)
    notes: list[str] = []
    models = encoders(method, resolved, baselines)
    read = read_encoders(models, train, resolved, pixels=baselines)
    tables, labels, _ = labelled_tables(read, train, notes)
    classes = max(int(labels.max()) + 1, len(train.classes or ()))
    parts = stratified_holdout(labels, resolved.recipe.eval.validation, seed)
    if not len(parts[1]):
        raise DataError(f"{train.name} has one sample of each class: none to validate on")
    tried = grid or LinearGrid()
    probes, chosen = {}, {}
    for name in (name for name in VARIANTS if name in tables):
        fitted, chosen[name] = fit_linear(tables[name], labels, classes, parts, tried, seed)
        probes[name] = Probe(chosen[name]["features"], fitted)
    levels: list[Level] = [None, *((one, level) for one in known for level in SEVERITIES)]
    right, answers = judge(models, probes, test, resolved, levels, seed)
    result: dict[str, Any] = {
        "clean": figures(right[0], answers),
        "corrupted": figures(_mean(right[1:]), answers),
        "corruptions": _by_corruption(known, right[1:], answers),
    }
    if shifted is not None:
        ids = _matching(train, shifted, notes)
        (others,), truth = judge(models, probes, shifted, resolved, [None], seed, ids)
        result["shifted"] = figures(others, truth) | {
            "source": shifted.name,
            "n_test": len(truth),
        }
    return result | {
        "chosen": chosen,
        "n_train": len(labels),
        "n_test": len(answers),
        "classes": classes,
        "seed": seed,
        "protocol": linear_protocol(tried, len(labels), parts) + ", clean and corrupted",
        "notes": notes,
    }


def judge(
    models: dict[str, Method],
    probes: dict[str, Probe],
    source: Source,
    resolved: Resolved,
    levels: Sequence[Level],
    seed: int,
    ids: Callable[[Tensor], Tensor] = lambda labels: labels,
) -> tuple[list[Right], Tensor]:
    """Whether each probe is right on each labelled sample, per level; reads every sample once.

    Args:
        ids: maps the source's labels to the probes' class ids; -1 = unknown class.

    Returns:
        for each level, variant -> (N,) float64; and the (N,) labels.
    """
    views = views_of(resolved.recipe)
    device = next(models["pretrained"].parameters()).device
    normalize = views.normalizer(device)
    recipe = resolved.recipe
    loader = eval_loader(source, views, recipe.eval.batch, workers=recipe.data.workers)
    found: list[dict[str, list[Tensor]]] = [{name: [] for name in probes} for _ in levels]
    answers: list[Tensor] = []
    with torch.inference_mode(), evaluating(*models.values()):
        for batch in loader:
            if batch.label is None:
                continue
            label = ids(batch.label)
            known = label >= 0
            answers.append(label[known])
            for level, rows in zip(levels, found, strict=True):
                spoilt = batch if level is None else corrupt(batch, views.main, *level, seed)
                seen = normalize(spoilt)
                for name, probe in probes.items():
                    x = _features(models, name, probe.features, seen, views.raw)
                    guess = probe.classifier.logits(x).argmax(1)
                    rows[name].append((guess == label)[known].double())
    for damage in loader.damaged:
        warn(f"left out {damage}")
    if not sum(map(len, answers)):
        raise DataError(f"{source.name} has no labels of these classes in split '{source.split}'")
    joined = [{name: torch.cat(parts) for name, parts in rows.items()} for rows in found]
    return joined, torch.cat(answers).clone()


def figures(right: Right, labels: Tensor) -> dict[str, Any]:
    """Both accuracies of every variant, and the gain of ``pretrained`` with its 95 % interval."""
    weights = {"accuracy": None, "balanced_accuracy": balancing_weights(labels)}
    result: dict[str, Any] = {
        figure: {
            name: float(one.mean() if weight is None else one @ weight)
            for name, one in right.items()
        }
        for figure, weight in weights.items()
    }
    intervals = {
        name: {
            figure: paired_interval(right["pretrained"], theirs, weights=weight).as_dict()
            for figure, weight in weights.items()
        }
        for name, theirs in right.items()
        if name != "pretrained"
    }
    return result | {"intervals": intervals}


def _features(
    models: dict[str, Method],
    variant: str,
    name: str,
    batch: Batch,
    raw: Callable[[Batch], Tensor],
) -> Tensor:
    return (raw(batch) if name == PIXELS else feature(models[variant], batch, name)).cpu()


def _by_corruption(
    known: Sequence[Corruption], right: Sequence[Right], labels: Tensor
) -> dict[str, Any]:
    """Figures by corruption; ``right`` is ordered by corruption, then by severity."""
    found: dict[str, Any] = {}
    for number, one in enumerate(known):
        levels = right[number * len(SEVERITIES) : (number + 1) * len(SEVERITIES)]
        found[one.name] = {
            "unit": one.unit,
            "severities": [
                {"strength": strength, **figures(level, labels)}
                for strength, level in zip(one.strengths, levels, strict=True)
            ],
        }
    return found


def _mean(levels: Sequence[Right]) -> Right:
    return {name: torch.stack([level[name] for level in levels]).mean(0) for name in levels[0]}


def _matching(train: Source, other: Source, notes: list[str]) -> Callable[[Tensor], Tensor]:
    """Map labels of ``other`` to those of ``train``, by class name if both have names."""
    if not train.classes or not other.classes:
        return lambda labels: labels
    names = {name: number for number, name in enumerate(train.classes)}
    table = torch.tensor([names.get(name, -1) for name in other.classes] + [-1])
    unknown = [name for name in other.classes if name not in names]
    if len(unknown) == len(other.classes):
        raise DataError(f"{other.name} has none of the classes of {train.name}")
    if unknown:
        notes.append(f"{other.name}: left out {len(unknown)} classes that were not trained")
    return lambda labels: table[labels]  # label -1 (unlabelled) indexes the last entry
