"""Pictures of the first batch, its masks, and its reconstructions during training."""

from __future__ import annotations

from dataclasses import replace

from mimsuite import report
from mimsuite.batch import Batch
from mimsuite.report import RunDirectory
from mimsuite.train.blocks import without_compiled
from mimsuite.train.trainer import Trainer

_SAMPLES = 32


class Pictures:
    """Called with each micro-batch before its step; the first rank draws when a picture is due.

    All ranks must call it, because sharded weights are gathered for a picture.
    """

    def __init__(self, trainer: Trainer, run: RunDirectory) -> None:
        self.trainer, self.run = trainer, run
        self.batch: Batch | None = None  # to draw; on the first rank
        self._seen = False
        epochs = trainer.recipe.log.pictures_every_epochs
        self.every = None if epochs is None else max(1, round(epochs * trainer.steps_per_epoch))
        self._drawn = -1  # step of the last picture: a step may have several micro-batches

    def __call__(self, batch: Batch) -> None:
        step = self.trainer.step
        if not self._seen:
            self._seen = True
            if self.trainer.peers.first:
                first = batch.rows(0, _SAMPLES)
                # Copies: slices would keep the whole micro-batch in the device's memory.
                views = {name: view.clone() for name, view in first.views.items()}
                self.batch = replace(first, views=views)
            if step == 0:
                self._draw(None)
        elif self.every is not None and step and step % self.every == 0 and step != self._drawn:
            self._draw(step)
        self._drawn = step

    def at_end(self) -> None:
        if self._seen:
            self._draw(self.trainer.step)

    def _draw(self, step: int | None) -> None:
        trainer = self.trainer
        method = trainer.whole_method()

        def draw() -> None:
            assert self.batch is not None
            seed = trainer.recipe.train.seed
            with without_compiled():
                report.first_pictures(self.run, method, self.batch, seed=seed, step=step)

        trainer.peers.run_on_first(draw)
