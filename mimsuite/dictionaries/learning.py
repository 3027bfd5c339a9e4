"""The training loop of a dictionary on cached rows."""

from __future__ import annotations

import math
import time
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mimsuite.config.keys.dictionaries import ArchetypalAtomsSection
from mimsuite.console import say
from mimsuite.dictionaries.base import Dictionary
from mimsuite.dictionaries.build import build_dictionary
from mimsuite.dictionaries.rates import published_rate, rate_table
from mimsuite.dictionaries.rows import Rows
from mimsuite.dictionaries.training import Activity, train_step
from mimsuite.errors import DataError, MimsuiteError
from mimsuite.noise import key_of
from mimsuite.targets.kmeans import fit as fit_centres

_POINTS_FROM = 16  # rows per archetypal point in the k-means that finds the points
_ITERATIONS = 10  # iterations of k-means
_EVERY_SECONDS = 20.0  # interval between lines of progress


class Learnt(NamedTuple):
    """A trained dictionary, in eval mode.

    Attributes:
        dead: (C,) bool, codes that no row of the last epoch used.
        losses: mean loss of each epoch.
    """

    dictionary: Dictionary
    dead: Tensor
    losses: list[float]


def learn(rows: Rows, width: int, recipe: Any, seed: int, device: torch.device) -> Learnt:
    """Train a dictionary.

    Args:
        recipe: a ``DictionaryRecipe``.
        seed: seed of weights and sample order.

    Raises:
        DataError: fewer rows than a batch or than archetypal points.
        MimsuiteError: the loss is not finite.
    """
    batch, target, schedule = recipe.train.global_batch, recipe.target, recipe.schedule
    per_epoch = rows.steps(batch)
    if not per_epoch:
        raise DataError(f"{len(rows)} patches are fewer than a batch: set train.global_batch")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key_of(seed, "dictionary"))
        dictionary = build_dictionary(target, width, _points(rows, target, seed)).to(device)
        optimizer = torch.optim.Adam(
            dictionary.parameters(), lr=recipe.lr, betas=recipe.optim.betas, eps=recipe.optim.eps
        )
        rates = _rates(recipe, per_epoch)
        activity = Activity(target.codes, device)
        losses, reported = [], time.monotonic()
        total, number = len(rates), 0
        for epoch in range(math.ceil(schedule.epochs)):
            passed: list[float] = []
            for x in rows.shuffled(batch, seed, epoch):
                if number == total:
                    break
                optimizer.param_groups[0]["lr"] = rates[number]
                idle = activity.idle(target.penalty.dead_after)
                done = train_step(
                    dictionary, x, optimizer, target.penalty, recipe.optim.clip_grad, idle
                )
                if not math.isfinite(done.loss):
                    raise MimsuiteError(
                        f"the loss is not finite in step {number}: lower optim.lr {recipe.lr:g}"
                    )
                activity.see(done.coded.codes)
                passed.append(done.loss)
                number += 1
                if time.monotonic() - reported > _EVERY_SECONDS:
                    reported = time.monotonic()
                    say(f"seed {seed}: step {number} of {total}, loss {done.loss:.4f}")
            losses.append(sum(passed) / max(len(passed), 1))
    seen = min(number, per_epoch) * batch
    return Learnt(dictionary.eval(), activity.idle(seen).cpu(), losses)


def _rates(recipe: Any, per_epoch: int) -> list[float]:
    schedule = recipe.schedule
    total = max(round(schedule.epochs * per_epoch), 1)
    warmup = min(round(schedule.warmup_epochs * per_epoch), total)
    table = rate_table(recipe.lr, schedule.min_lr, total, warmup)
    if schedule.kind == "cosine":
        return table
    return [published_rate(table, step, recipe.lr, schedule.min_lr) for step in range(total)]


def _points(rows: Rows, target: Any, seed: int) -> Tensor | None:
    """(P, D) k-means centres of a sample of rows, for archetypal atoms; else ``None``."""
    if not isinstance(target.atoms, ArchetypalAtomsSection):
        return None
    count = target.atoms.points
    some = rows.some(_POINTS_FROM * count, seed)
    if len(some) < count:
        raise DataError(f"{len(some)} patches are fewer than target.atoms.points={count}")
    return fit_centres(some, count, _ITERATIONS, seed)
