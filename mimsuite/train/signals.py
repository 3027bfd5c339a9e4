"""RankMe and LiDAR of the encoder during training, as diagnostics in the log."""

from __future__ import annotations

import torch

from mimsuite.data import open_training_set
from mimsuite.data.source import Source
from mimsuite.methods import Method, evaluating
from mimsuite.train.feature_rank import VIEWS, measure
from mimsuite.train.trainer import Trainer


class Signals:
    """Called at every log line; the first rank measures when a measurement is due.

    All ranks must call it, because sharded weights are gathered. The trained weights are measured,
    not their moving average. Training is not affected: modules get their mode back, no gradient is
    kept and no random number is drawn.

    Whether a measurement is due depends only on the step, so a resumed run logs the same values as
    an uninterrupted one.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        log = trainer.recipe.log
        epochs = log.signals_every_epochs
        self.every = None if epochs is None else max(1, round(epochs * trainer.steps_per_epoch))
        self._source: Source | None = None

    @property
    def note(self) -> str | None:
        """The cost of the measurements, for the log."""
        if self.every is None:
            return None
        recipe = self.trainer.recipe
        encoded = recipe.log.signals_samples * (1 + VIEWS)
        share = encoded / (self.every * recipe.train.global_batch)
        return (
            f"signals: every {self.every} steps {encoded} views are encoded, {share:.1%} of the "
            f"samples trained on in between"
        )

    def __call__(self, step: int) -> dict[str, float]:
        """Columns for the log line of ``step``; empty unless a measurement is due."""
        trainer = self.trainer
        if self.every is None or not trainer.due_since_last_line(step, self.every):
            return {}
        method = trainer.whole_method()
        found: dict[str, float] = {}
        # The others wait here: in their next step they would wait by train.timeout_seconds.
        trainer.peers.run_on_first(lambda: found.update(self._measure(method)))
        return found

    def _measure(self, method: Method) -> dict[str, float]:
        trainer, recipe = self.trainer, self.trainer.recipe
        if self._source is None:  # a separate source: the loader's has files open in its workers
            self._source = open_training_set(recipe)
        batch = min(recipe.eval.batch, recipe.train.most_at_once)
        samples, device = recipe.log.signals_samples, trainer.device
        drawn = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(drawn), evaluating(method), trainer.precision.autocast():
            return measure(method, self._source, recipe, samples, batch, device)
