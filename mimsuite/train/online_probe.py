"""Online probe: accuracy of kNN and a linear head on the encoder during training, in the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mimsuite import config
from mimsuite.data import views_of
from mimsuite.data.source import Source
from mimsuite.data.sources.few import Subset
from mimsuite.errors import DataError
from mimsuite.evaluate.features import normalized_batches
from mimsuite.evaluate.metrics import accuracy
from mimsuite.evaluate.probes import logistic
from mimsuite.evaluate.probes.knn import knn_predict
from mimsuite.evaluate.sources import open_splits, say_unused
from mimsuite.evaluate.split import stratified_holdout
from mimsuite.methods import Method, evaluating
from mimsuite.noise import keyed_rng
from mimsuite.train.trainer import Trainer

if TYPE_CHECKING:
    from mimsuite.config import Resolved

KNN, LINEAR = "probe/knn", "probe/linear"


class OnlineProbe:
    """Called at every log line; the first rank measures when a measurement is due.

    It uses the moving average's weights if the recipe keeps one, else the trained weights. Features
    come from the last block, pooled by ``eval.pool`` (``auto``: the mean). Both probes train on at
    most ``log.probe_samples`` labelled samples and are scored on as many others, always the same.

    Training is not affected: features are computed without gradient, modules get their mode back,
    and no random number is drawn. Whether a measurement is due depends only on the step.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, log = trainer, trainer.recipe.log
        epochs = log.probe_every_epochs
        self.every = None if epochs is None else max(1, round(epochs * trainer.steps_per_epoch))
        if self.every is not None:
            trainer.peers.run_on_first(self._open)

    def __call__(self, step: int) -> dict[str, float]:
        """Columns for the log line of ``step``; empty unless a measurement is due."""
        trainer = self.trainer
        if self.every is None or not trainer.due_since_last_line(step, self.every):
            return {}
        method = trainer.whole_method(averaged=True, copy=True)
        found: dict[str, float] = {}
        drawn = [trainer.device] if trainer.device.type == "cuda" else []

        def measure() -> None:
            with torch.random.fork_rng(drawn), evaluating(method):
                found.update(self._measure(method))

        trainer.peers.run_on_first(measure)
        return found

    def _open(self) -> None:
        """Open the labelled samples for training and scoring.

        Raises:
            DataError: there are no labels, or only one class.
        """
        self._resolved = self._recipe()
        train, test = open_splits(self._resolved, labelled=False)
        recipe = self._resolved.recipe
        if recipe.log.probe_source:  # the run has reported on its own data already
            say_unused(self._resolved, train)
        named = f"log.probe_every_epochs: {train.name}"
        if not train.labelled or (test is not None and not test.labelled):
            raise DataError(
                f"{named} has no labels{train.other_labels}: name a labelled set with "
                "log.probe_source"
            )
        labels = train.labels()
        known = np.flatnonzero(labels >= 0)
        if len(np.unique(labels[known])) < 2:
            raise DataError(f"{named} has one class in '{train.split}': nothing to tell apart")
        if test is None:
            kept, held = stratified_holdout(
                torch.from_numpy(labels[known]), recipe.eval.validation, recipe.train.seed, "test"
            )
            rows, tested = known[kept.numpy()], known[held.numpy()]
            test = train
        else:
            rows, tested = known, np.flatnonzero(test.labels() >= 0)
        self._train, self._test = self._few(train, rows), self._few(test, tested)
        if not len(self._test):
            raise DataError(f"{named} has too few samples to score a probe on")

    def _recipe(self) -> Resolved:
        """The run's recipe, changed to read the probe's samples."""
        resolved, recipe = self.trainer.resolved, self.trainer.recipe
        batch = min(recipe.eval.batch, recipe.train.most_at_once)
        changes: dict[str, object] = {"eval.batch": batch}
        if source := recipe.log.probe_source:
            changes |= {"data.source": source, "data.mixture": None, "data.folds": None}
            changes |= {"data.fold": 0, "data.limit": None, "data.per_class": None}
        return config.with_overrides(resolved, changes, "log.probe_source")

    def _few(self, source: Source, rows: np.ndarray) -> Source:
        recipe = self.trainer.recipe
        count = min(recipe.log.probe_samples, len(rows))
        rng = keyed_rng(recipe.train.seed, "online probe", source.split)
        return Subset(source, np.sort(rng.choice(rows, count, replace=False)))

    def _measure(self, method: Method) -> dict[str, float]:
        rows, labels = self._features(method, self._train)
        queries, truth = self._features(method, self._test)
        if not bool(rows.isfinite().all() and queries.isfinite().all()):
            return {}
        classes = int(torch.cat([labels, truth]).max()) + 1
        neighbours = self.trainer.recipe.eval.neighbours
        nearest = knn_predict(rows, labels, queries, neighbours, classes)
        linear = logistic.fit(rows, labels, classes).logits(queries).argmax(1)
        return {KNN: accuracy(nearest, truth), LINEAR: accuracy(linear, truth)}

    def _features(self, method: Method, source: Source) -> tuple[Tensor, Tensor]:
        """Features (N, D) float32 and labels (N,), on the CPU."""
        pool = self.trainer.recipe.eval.pool
        device, views = self.trainer.device, views_of(self.trainer.recipe)
        rows, labels = [], []
        with torch.no_grad(), self.trainer.precision.autocast():
            for batch in normalized_batches(source, self._resolved, device, views=views):
                assert batch.label is not None
                features = method.encode(batch).pool("mean" if pool == "auto" else pool)
                rows.append(features.float().cpu())
                labels.append(batch.label.cpu())
        return torch.cat(rows), torch.cat(labels)
