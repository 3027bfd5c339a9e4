"""Dense probes: predict segments and depth from the patch features of a frozen encoder.

Features are computed once. Layer and learning rate are chosen on held-out images of the training
split. The chosen head is then trained on the whole split, and the test split is scored once. The
baselines (the same encoder with fresh weights, raw patch pixels, a constant answer) follow the same
protocol.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from mimsuite.checkpoints import initialise
from mimsuite.console import say
from mimsuite.data.dense import DenseSource, open_dense
from mimsuite.data.sources.few import Subset
from mimsuite.errors import DataError, UserError
from mimsuite.evaluate.dense.features import DenseTables, Encode, extract_dense, patch_pixels
from mimsuite.evaluate.dense.heads import train_heads
from mimsuite.evaluate.dense.knn import patch_bank
from mimsuite.evaluate.dense.result import dense_result
from mimsuite.evaluate.dense.scoring import (
    Outputs,
    count_constant,
    count_images,
    scaled_truths,
    truths_of_test,
)
from mimsuite.evaluate.dense.tasks import Depth, Segments, Task
from mimsuite.evaluate.features import wanted_layers
from mimsuite.methods import build
from mimsuite.methods.dense import DenseReader
from mimsuite.noise import key_of, keyed_rng
from mimsuite.train.device import choose_device

if TYPE_CHECKING:
    from mimsuite.config import Resolved
    from mimsuite.data.source import Source

KNN = "knn"


@dataclass(frozen=True)
class Outcome:
    """Result of one variant on one task.

    Attributes:
        counts: (N, ...) counts of the test images; see :mod:`.tasks`.
        chosen: layer and learning rate chosen by validation.
    """

    counts: np.ndarray
    chosen: dict[str, Any]


class Splits(NamedTuple):
    """Sources of the probe, and the rows of the training split for fitting and for validation."""

    train: Source
    test: DenseSource
    fit: np.ndarray
    held: np.ndarray


def dense_probe(path: str | Path, recipe: Resolved, *, baselines: bool = False) -> dict[str, Any]:
    """Probe the encoder at ``path``.

    Args:
        path: run, checkpoint or weights file.
        recipe: from :func:`mimsuite.evaluate.probe_recipe.compose`.
        baselines: measure the baselines too.

    Returns:
        see :func:`mimsuite.evaluate.dense.result.dense_result`.

    Raises:
        UserError: no such split, or weights that do not fit.
        DataError: data that cannot be read, or too few images.
    """
    section = recipe.recipe
    device = choose_device(section.train.device)
    splits = _splits(recipe)
    tasks = _tasks(recipe, splits.test)
    found: dict[str, dict[str, Outcome]] = {}
    keys: list[str] = []
    for variant, encode in _variants(path, recipe, device, baselines):
        say(f"{variant}: reading {len(splits.train)} and {len(splits.test)} images")
        with tempfile.TemporaryDirectory(prefix="mimsuite-dense-") as folder:
            train, test = (
                extract_dense(encode, source, recipe, device, Path(folder) / source.split)
                for source in (splits.train, splits.test)
            )
            found[variant] = {
                name: _probe(name, task, train, test, splits, recipe, device)
                for name, task in tasks.items()
            }
            if variant == "random_init":
                found["majority"] = {
                    name: _constant(task, train, test, splits.test, recipe)
                    for name, task in tasks.items()
                }
            keys = test.keys
    return dense_result(recipe, tasks, found, splits.test, keys, len(splits.fit), len(splits.held))


def _variants(
    path: str | Path, recipe: Resolved, device: torch.device, baselines: bool
) -> list[tuple[str, Encode]]:
    layers = wanted_layers(recipe.recipe.eval, recipe.recipe.model.encoder.depth)
    found = [("pretrained", _maps(_reader(recipe, path, device), layers))]
    if baselines:
        patch = recipe.recipe.model.encoder.patch_size
        found.append(("random_init", _maps(_reader(recipe, None, device), layers)))
        found.append(("raw_input", lambda batch: patch_pixels(batch, patch)))
    return found


def _reader(recipe: Resolved, path: str | Path | None, device: torch.device) -> DenseReader:
    """The encoder with the weights at ``path``, or fresh ones by ``train.seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key_of(recipe.recipe.train.seed, "weights"))
        reader = build(recipe.recipe)
    assert isinstance(reader, DenseReader)
    if path is not None:
        for line in initialise(reader, path):
            say(line)
    return reader.to(device)


def _maps(reader: DenseReader, layers: Sequence[int]) -> Encode:
    depth = reader.encoder.depth
    if min(layers) < 1 or max(layers) > depth:
        raise UserError(f"eval.layers {list(layers)}: this encoder has blocks 1 to {depth}")
    deepest_first = sorted(layers, reverse=True)
    return lambda batch: {
        f"block {layer}": table for layer, table in reader.maps(batch, deepest_first).items()
    }


def _splits(recipe: Resolved) -> Splits:
    section = recipe.recipe
    train: Source = open_dense(section, section.data.split)
    if section.eval.split == section.data.split:
        raise UserError(f"eval.split={section.eval.split} is the split that heads are trained on")
    test = open_dense(section, section.eval.split)
    count = len(train)
    if section.data.limit is not None and section.data.limit < count:
        rows = np.linspace(0, count - 1, section.data.limit).round().astype(np.int64)
        train, count = Subset(train, rows), len(rows)
    if count < 2:
        raise UserError(f"{train.name} has {count} image in '{train.split}': two are needed")
    order = keyed_rng(section.train.seed, "dense validation", count).permutation(count)
    held = min(max(round(section.eval.validation * count), 1), count - 1)
    return Splits(train, test, np.sort(order[held:]), np.sort(order[:held]))


def _tasks(recipe: Resolved, source: DenseSource) -> dict[str, Task]:
    """Tasks by name: ``segments``, ``knn`` and ``depth``."""
    target, tasks = recipe.recipe.target, dict[str, Task]()
    if target.segments is not None:
        classes = len(source.listing.classes)
        tasks |= {Segments.name: Segments(classes), KNN: Segments(classes)}
    if target.depth is not None:
        tasks[Depth.name] = Depth(target.depth.nearest, target.depth.farthest)
    return tasks


def _probe(
    name: str,
    task: Task,
    train: DenseTables,
    test: DenseTables,
    splits: Splits,
    recipe: Resolved,
    device: torch.device,
) -> Outcome:
    """Choose on validation, train on all, score the test split once."""
    section, truth = recipe.recipe, train.truth[task.name]
    # Match by position in the source: row numbers shift where corrupt samples are missing.
    fit, held = (np.flatnonzero(np.isin(train.positions, rows)) for rows in splits[2:])
    if not len(fit) or not len(held):
        raise DataError(f"{splits.train.name}: too few images could be read to train and validate")
    rates = _rates(section) if name != KNN else [0.0]

    def fitted(layer: str, rows: np.ndarray, tried: Sequence[float]) -> Sequence[Outputs]:
        if name == KNN:
            return [patch_bank(train.maps[layer], truth, rows, task.channels, section, device)]
        return train_heads(train.maps[layer], truth, rows, task, tried, section, device)

    tried: dict[tuple[str, float], float] = {}
    for layer, table in train.maps.items():
        for rate, outputs in zip(rates, fitted(layer, fit, rates), strict=True):
            counts = count_images(outputs, task, table[held], scaled_truths(truth[held]), device)
            tried[layer, rate] = task.figures_of(counts)[task.main]
    layer, rate = max(tried, key=lambda choice: tried[choice])  # ties: deepest layer, first rate
    (outputs,) = fitted(layer, np.arange(len(train)), [rate])
    truths = truths_of_test(test, splits.test, task, recipe)
    counts = count_images(outputs, task, test.maps[layer], truths, device)
    chosen = {"features": layer, "validation": tried[layer, rate]}
    return Outcome(counts, chosen if name == KNN else {**chosen, "learning_rate": rate})


def _rates(section: Any) -> list[float]:
    return [section.lr * factor for factor in section.optim.factors]


def _constant(
    task: Task, train: DenseTables, test: DenseTables, source: DenseSource, recipe: Resolved
) -> Outcome:
    """The same answer for every pixel."""
    truths = truths_of_test(test, source, task, recipe)
    counts, answer = count_constant(task, train.truth[task.name], truths)
    return Outcome(counts, {"answer": answer})
