"""Nearest neighbours by cosine similarity: a probe without training or tuning.

Letters: N training samples, Q queries, D width, K classes, k neighbours.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_CHUNK = 1024  # queries per chunk


def knn_predict(
    features: Tensor, labels: Tensor, queries: Tensor, neighbours: int, classes: int
) -> Tensor:
    """(Q,) int64 classes by an unweighted majority of the ``neighbours`` most similar samples.

    Arguments and ties as in :func:`knn_scores`.
    """
    return knn_scores(features, labels, queries, neighbours, classes).argmax(1)


def knn_scores(
    features: Tensor, labels: Tensor, queries: Tensor, neighbours: int, classes: int
) -> Tensor:
    """(Q, K) votes of the ``neighbours`` most similar samples for each class.

    Ties go to the class with the most similar neighbour. With fewer training samples than
    ``neighbours``, all of them vote.

    Args:
        features: (N, D); only their directions matter.
        labels: (N,) int64 in ``range(classes)``.
        queries: (Q, D).
    """
    reference = F.normalize(features.float(), dim=1)
    count = min(neighbours, len(reference))
    found = []
    for chunk in F.normalize(queries.float(), dim=1).split(_CHUNK):
        similarity, nearest = (chunk @ reference.T).topk(count, dim=1)  # (q, k)
        votes = F.one_hot(labels[nearest], classes)  # (q, k, K)
        best = torch.where(votes.bool(), similarity.unsqueeze(2), -2.0).amax(dim=1)  # (q, K)
        # Similarities are at most 1: divided by 4 they break ties but never outweigh a vote.
        found.append(votes.sum(1) + best / 4)
    return torch.cat(found)


def nearest_mean(features: Tensor, targets: Tensor, queries: Tensor, neighbours: int) -> Tensor:
    """(Q, T) mean of the targets (N, T) of the ``neighbours`` most similar samples. NaN targets are
    ignored; if all are NaN, the mean of all samples is used.

    Arguments as of :func:`knn_scores`.
    """
    reference = F.normalize(features.float(), dim=1)
    count = min(neighbours, len(reference))
    found = []
    for chunk in F.normalize(queries.float(), dim=1).split(_CHUNK):
        nearest = (chunk @ reference.T).topk(count, dim=1).indices  # (q, k)
        mean = targets[nearest].nanmean(dim=1)  # (q, T)
        found.append(torch.where(mean.isnan(), targets.nanmean(dim=0), mean))
    return torch.cat(found)
