"""Per-sample difficulty: masked loss and nearest-neighbour distance.

Letters: N samples, K masks per sample, D width.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.data.source import Source
from mimsuite.errors import DataError, UserError
from mimsuite.evaluate.features import FeatureSet, normalized_batches
from mimsuite.methods import Method, evaluating
from mimsuite.noise import Noise
from mimsuite.train.step import run_method

if TYPE_CHECKING:
    from mimsuite.config import Resolved

_CHUNK = 1024  # queries per chunk


@dataclass(frozen=True)
class Difficulty:
    """Difficulty scores of samples; higher means more unusual.

    Attributes:
        keys: N sample names.
        masked_error: (N,) float32, the method's loss averaged over masks.
        neighbour_distance: (N,) float32, see :func:`neighbour_distances`.
        labels: (N,) int64, -1 = unlabelled; ``None`` if the source has no labels.
    """

    keys: list[str]
    masked_error: Tensor
    neighbour_distance: Tensor
    labels: Tensor | None


def masked_errors(
    method: Method, source: Source, resolved: Resolved, masks: int = 8, seed: int = 0
) -> dict[str, float]:
    """Sample key -> its loss, averaged over masks that are keyed by its position in the source.

    A batch is one sample under all its masks. Any method's loss is a mean over the batch, so any
    method can score samples this way.

    Args:
        method: with all weights that its loss needs, on the device to compute on.
        masks: masks per sample.
        seed: seed of the masks.

    Raises:
        DataError: no sample could be read.
    """
    device = next(method.parameters()).device
    errors: list[Tensor] = []
    keys: list[str] = []
    with torch.inference_mode(), evaluating(method):
        for batch in normalized_batches(source, resolved, device):
            for row in range(len(batch)):
                copies = _under_masks(batch.rows(row, row + 1), masks)
                noise = Noise(seed, 0, copies.index, copies.host_index)
                errors.append(run_method(method, copies, noise).loss.float())
            keys += batch.keys
    if not keys:
        raise DataError(f"{source.name} has no sample in split '{source.split}'")
    return dict(zip(keys, torch.stack(errors).tolist(), strict=True))


def _under_masks(one: Batch, masks: int) -> Batch:
    """Copies of one sample, each with its own key."""

    def numbered(index: Tensor) -> Tensor:
        return index * masks + torch.arange(masks, device=index.device)

    return replace(
        one,
        views={name: view.expand(masks, *view.shape[1:]) for name, view in one.views.items()},
        index=numbered(one.index),
        keys=one.keys * masks,
        label=None,
        host_index=None if one.host_index is None else numbered(one.host_index),
    )


def neighbour_distances(
    features: Tensor, queries: Tensor, neighbours: int = 5, *, same: bool = False
) -> Tensor:
    """(Q,) float32 cosine distance, in [0, 2], to the nearest samples: mean over ``neighbours``.

    Args:
        features: (N, D) features of the normal samples.
        queries: (Q, D) features of the samples to score.
        same: the queries are the features themselves; no sample is its own neighbour.

    Raises:
        UserError: fewer samples than neighbours.
    """
    if neighbours > len(features) - same:
        raise UserError(
            f"{neighbours} neighbours of {len(features) - same} other samples: ask for fewer"
        )
    reference = F.normalize(features.float(), dim=1)
    found = []
    for start in range(0, len(queries), _CHUNK):
        similarity = F.normalize(queries[start : start + _CHUNK].float(), dim=1) @ reference.T
        if same:
            rows = torch.arange(len(similarity))
            similarity[rows, rows + start] = -2.0
        found.append(1 - similarity.topk(neighbours, dim=1).values.mean(1))
    return torch.cat(found)


def difficulty(errors: dict[str, float], found: FeatureSet, distances: Tensor) -> Difficulty:
    """Both scores of the samples in ``found``, which has one feature table."""
    masked = torch.tensor([errors[key] for key in found.keys])
    return Difficulty(found.keys, masked, distances, found.labels)


def auroc(scores: Tensor, anomalous: Tensor) -> float:
    """Probability that an anomalous sample scores higher than a normal one; ties count half.

    Args:
        scores: (N,).
        anomalous: (N,) bool, with samples of both kinds.
    """
    normal = scores[~anomalous].sort().values
    asked = scores[anomalous]
    below = torch.searchsorted(normal, asked, right=False)
    up_to = torch.searchsorted(normal, asked, right=True)
    return float((below + up_to).double().mean() / 2 / len(normal))


def save_difficulty(found: Difficulty, path: Path) -> None:
    """Write ``key,masked_error,neighbour_distance[,label]``, the most unusual sample first.

    Raises:
        UserError: the file cannot be written.
    """
    names = ["key", "masked_error", "neighbour_distance"]
    names += [] if found.labels is None else ["label"]
    columns = [found.masked_error.tolist(), found.neighbour_distance.tolist()]
    columns += [] if found.labels is None else [found.labels.tolist()]
    rows = sorted(zip(found.keys, *columns, strict=True), key=lambda row: -row[1])
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(names)
            writer.writerows(rows)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
