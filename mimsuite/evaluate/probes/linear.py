"""A linear probe on cached features, for a whole grid of learning rates and weight decays at once.

All heads of a feature set see the same minibatches, so their weights form one matrix and a step of
all heads is two matrix products; the gradient of softmax regression is written out. Held-out
training samples choose the features (layer, pooling); test samples are not used. The reported
figure on those features comes from :mod:`.logistic`.

Letters: N samples, D width, K classes, H heads (learning rate x weight decay), b minibatch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from mimsuite.evaluate.probes.logistic import standardisation
from mimsuite.noise import keyed_rng

_BETAS = (0.9, 0.999)
_EPS = 1e-8


@dataclass(frozen=True)
class LinearGrid:
    """Hyperparameter grid and training length of the fast linear probe.

    AdamW with a cosine to zero over ``epochs`` of the training part, but at least ``min_steps``
    steps, since few samples make short epochs.
    """

    learning_rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
    weight_decays: tuple[float, ...] = (0.0, 0.3, 3.0)
    batch: int = 1024
    epochs: int = 10
    min_steps: int = 500

    def steps(self, samples: int) -> int:
        return max(self.epochs * math.ceil(samples / self.batch), self.min_steps)


@dataclass(frozen=True)
class Choice:
    """The choice of validation, and its validation accuracy."""

    features: str
    learning_rate: float
    weight_decay: float
    validation_accuracy: float


@dataclass(frozen=True)
class Heads:
    """Trained heads with their feature standardisation.

    Attributes:
        weight: (D, H, K); ``bias`` (H, K).
        mean: (D,) of the training features; ``scale`` (D,) 1 / deviation, 0 for constant features.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    scale: Tensor

    def logits(self, features: Tensor) -> Tensor:
        """(N, D) raw features -> (N, H, K)."""
        rows = (features - self.mean) * self.scale
        return (rows @ self.weight.flatten(1)).unflatten(1, self.bias.shape) + self.bias


def fit_heads(
    features: Tensor,
    labels: Tensor,
    classes: int,
    settings: list[tuple[float, float]],
    grid: LinearGrid,
    seed: int,
) -> Heads:
    """Train one head for each (learning rate, weight decay) of ``settings``.

    Args:
        features: (N, D) float; standardised here by their mean and deviation.
        labels: (N,) int64 in ``range(classes)``.
        seed: seed of the minibatch order.
    """
    mean, scale = standardisation(features)
    heads = len(settings)
    weight = features.new_zeros(heads, classes, features.shape[1])  # (H, K, D)
    bias = features.new_zeros(heads, classes)
    slopes = torch.zeros_like(weight), torch.zeros_like(bias)
    optimizer = _optimizer(weight, bias, slopes, settings)
    # Buffers are allocated once: allocating them in each step costs more than the products.
    logits = features.new_empty(min(grid.batch, len(features)), heads * classes)
    total = grid.steps(len(features))
    for step, rows in enumerate(_minibatches(len(features), grid.batch, total, seed)):
        rows = rows.to(features.device)
        x = features[rows].sub_(mean).mul_(scale)  # (b, D)
        found = torch.addmm(bias.flatten(), x, weight.flatten(0, 1).T, out=logits[: len(rows)])
        error = _softmax_(found.unflatten(1, (heads, classes)))  # (b, H, K)
        error -= F.one_hot(labels[rows], classes).unsqueeze(1)
        error /= len(x)
        torch.mm(error.flatten(1).T, x, out=slopes[0].flatten(0, 1))
        torch.sum(error, 0, out=slopes[1])
        for group, (rate, _) in zip(optimizer.param_groups, settings + settings, strict=True):
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / total))
        optimizer.step()
    return Heads(weight.permute(2, 0, 1), bias, mean, scale)


def _optimizer(
    weight: Tensor, bias: Tensor, slopes: tuple[Tensor, Tensor], settings: list[tuple[float, float]]
) -> torch.optim.AdamW:
    """AdamW of every head's weights, then of their biases, with ``slopes`` as gradients."""
    groups = []
    for table, slope, decayed in ((weight, slopes[0], True), (bias, slopes[1], False)):
        for own, gradient, (rate, decay) in zip(table, slope, settings, strict=True):
            own.grad = gradient
            groups.append({"params": [own], "lr": rate, "weight_decay": decay if decayed else 0.0})
    return torch.optim.AdamW(groups, betas=_BETAS, eps=_EPS, fused=True)


def search(
    sets: dict[str, Tensor],
    labels: Tensor,
    classes: int,
    parts: tuple[Tensor, Tensor],
    grid: LinearGrid,
    seed: int,
) -> Choice:
    """Train the whole grid on one part of the training samples and choose on the other.

    The best validation accuracy wins; ties go to the smaller validation loss.

    Args:
        sets: name -> (N, D) features of the same N samples.
        parts: row numbers for training and for validation.
    """
    fit, held = (rows.to(labels.device) for rows in parts)
    settings = list(product(grid.learning_rates, grid.weight_decays))
    best: tuple[float, float, Choice] | None = None
    for name, features in sets.items():
        heads = fit_heads(features[fit], labels[fit], classes, settings, grid, seed)
        right, losses = _measure(heads, features[held], labels[held])
        for (rate, decay), score, loss in zip(settings, right, losses, strict=True):
            if best is None or (score, -loss) > best[:2]:
                best = (score, -loss, Choice(name, rate, decay, score))
    if best is None:
        raise ValueError("no features to choose from")
    return best[2]


def _softmax_(logits: Tensor) -> Tensor:
    """Softmax in place over the last axis; torch's is seven times slower for an axis as short as
    10."""
    logits.sub_(logits.amax(-1, keepdim=True)).exp_()
    return logits.div_(logits.sum(-1, keepdim=True))


def _measure(heads: Heads, features: Tensor, labels: Tensor) -> tuple[list[float], list[float]]:
    """Per head: accuracy and mean cross-entropy."""
    right = torch.zeros(heads.bias.shape[0], device=labels.device)
    loss = torch.zeros_like(right)
    for x, y in zip(features.split(4096), labels.split(4096), strict=True):
        logits = heads.logits(x)  # (n, H, K)
        target = y.view(-1, 1, 1).expand(-1, logits.shape[1], 1)
        right += (logits.argmax(2) == y[:, None]).sum(0)
        loss -= logits.log_softmax(2).gather(2, target).squeeze(2).sum(0)
    return (right.double() / len(labels)).tolist(), (loss.double() / len(labels)).tolist()


def _minibatches(samples: int, batch: int, steps: int, seed: int) -> Iterator[Tensor]:
    """Row numbers of ``steps`` minibatches; each epoch is reshuffled and split evenly."""
    cuts = math.ceil(samples / batch)
    for step in range(steps):
        epoch, cut = divmod(step, cuts)
        if cut == 0:
            order = torch.from_numpy(keyed_rng(seed, "linear probe", epoch).permutation(samples))
        yield order[cut * samples // cuts : (cut + 1) * samples // cuts]
