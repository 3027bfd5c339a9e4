"""Measures of feature quality without labels: RankMe and LiDAR.

They are diagnostics, not scores: how well they predict probe accuracy depends on the data and on
the models compared.

Letters: N samples, Q random views of each, D width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.data.damage import CorruptSample
from mimsuite.data.image.augment import stack
from mimsuite.data.source import Source
from mimsuite.data.views import Views, views_of
from mimsuite.methods import Method
from mimsuite.noise import keyed_rng

if TYPE_CHECKING:
    from mimsuite.config.keys.shared import Recipe

RANKME, LIDAR = "rankme", "lidar"
VIEWS = 8  # random views per sample: Q
_EPSILON = 1e-7  # added in the entropy, RankMe's value for float32
_RIDGE = 1e-4  # added to the diagonal of the within-class scatter
_SAME = 1e-10  # relative scatter below which views are equal up to rounding


def rankme(features: Tensor) -> float:
    """RankMe (Garrido et al., arXiv:2210.02885, equation 1): a smooth rank of a feature matrix.

    ``exp(-sum p log p)`` with ``p = s / sum(s) + 1e-7`` of the singular values s.

    Args:
        features: (N, D), not centred.

    Returns:
        about 1 (collapsed) to min(N, D); 0 if all features are 0.
    """
    return _effective_rank(torch.linalg.svdvals(features.double().cpu()))


def lidar(features: Tensor) -> float | None:
    """LiDAR (Thilak et al., arXiv:2312.04000, section 4): the same rank of ``W^-1/2 B W^-1/2``.

    Every sample is a class, and its views are the members: B is the scatter of the class means, W
    the mean scatter within the classes, plus 1e-4 on the diagonal.

    Args:
        features: (N, Q, D).

    Returns:
        about 1 to min(N - 1, D); ``None`` if all views of each sample are equal.
    """
    table = features.double().cpu()
    means = table.mean(dim=1)  # (N, D)
    inner = (table - means.unsqueeze(1)).flatten(0, 1)  # (N Q, D)
    if float(inner.square().sum()) <= _SAME * float(table.square().sum()):
        return None
    within = inner.T @ inner / len(inner)
    within.diagonal().add_(_RIDGE)
    outer = means - means.mean(dim=0)
    values, directions = torch.linalg.eigh(within)
    # The eigenvalues of W^-1/2 B W^-1/2 are the squared singular values of the whitened means.
    whitened = outer @ directions * values.clamp_min(_RIDGE).rsqrt()
    return _effective_rank(torch.linalg.svdvals(whitened) ** 2)


def measure(
    method: Method, source: Source, recipe: Recipe, samples: int, batch: int, device: torch.device
) -> dict[str, float]:
    """RankMe and LiDAR of some training samples, the same ones in every call.

    RankMe uses the deterministic view of probes, LiDAR random training views; features are the mean
    of the encoder's tokens. Samples and views are keyed by ``train.seed``: no other generator is
    used, and gradients are not computed.

    Args:
        method: in eval mode.
        samples: largest N; the source may have fewer, and corrupt samples are skipped.
        batch: number of views encoded together.

    Returns:
        ``rankme`` and, if training views are random, ``lidar``; empty with fewer than two samples.
    """
    views = views_of(recipe)
    normalize = views.normalizer(device)
    found: list[Tensor] = []
    with torch.no_grad():
        for part in _batches(source, views, recipe.train.seed, samples, batch):
            found.append(method.encode(normalize(part)).pool("mean").float().cpu())
    if not found:
        return {}
    table = torch.cat(found).unflatten(0, (-1, 1 + VIEWS))  # (N, 1 + Q, D)
    if len(table) < 2 or not bool(table.isfinite().all()):
        return {}
    figures = {RANKME: rankme(table[:, 0]), LIDAR: lidar(table[:, 1:])}
    return {name: value for name, value in figures.items() if value is not None}


def _batches(source: Source, views: Views, seed: int, samples: int, batch: int) -> Iterator[Batch]:
    """Batches with each sample's deterministic view, then its Q random ones; read lazily."""
    count = min(samples, len(source))
    chosen = keyed_rng(seed, "signals").choice(len(source), count, replace=False)
    rows: list[dict[str, Tensor]] = []
    for position in sorted(chosen.tolist()):  # in disk order
        with suppress(CorruptSample):  # the loader reports it
            rows += _views_of(source, views, seed, position)
        while len(rows) >= batch:
            yield _batch(rows[:batch])
            rows = rows[batch:]
    if rows:
        yield _batch(rows)


def _views_of(source: Source, views: Views, seed: int, position: int) -> list[dict[str, Tensor]]:
    sample = source.read(*source.locate(position))
    decoded = source.decode(sample)
    rows = [views.evaluate(decoded)]
    names = rows[0].keys()  # a tokenizer's view is not what `encode` reads
    for number in range(VIEWS):
        random = views.train(decoded, keyed_rng(seed, "signals", sample.key, number))
        # With repeated augmentation, use the first of several clips.
        rows.append({name: random[name][: len(rows[0][name])] for name in names})
    return rows


def _batch(rows: list[dict[str, Tensor]]) -> Batch:
    return Batch.of_views({name: stack([row[name] for row in rows]) for name in rows[0]})


def _effective_rank(values: Tensor) -> float:
    """``exp`` of the entropy of non-negative values, normalised to sum 1."""
    total = values.sum()
    if not bool(total > 0):
        return 0.0
    shares = values / total + _EPSILON
    return float((-(shares * shares.log()).sum()).exp())
