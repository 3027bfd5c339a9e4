"""Linear heads on patch features, one for each learning rate, trained side by side.

The outputs for patches are interpolated bilinearly to the label resolution. Both steps are linear,
so a training step may interpolate features instead: it gets the same outputs, but only for a few
hundred sampled pixels per image.

Letters: N samples, b images per step, P pixels per image, M = b P, D width, H heads, C outputs,
(h, w) grid of patches.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mimsuite.evaluate.dense.tasks import Task
from mimsuite.noise import keyed_rng
from mimsuite.schedule import rate_at


@dataclass(frozen=True)
class DenseHead:
    """A trained head with its feature standardisation.

    Attributes:
        weight: (C, D); ``bias`` (C,).
        mean: (D,) of the training patches; ``scale`` (D,) 1 / deviation, 0 for constant features.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    scale: Tensor

    def __call__(self, features: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, D, h, w) features -> (B, C, *size)."""
        weight = self.weight * self.scale  # (C, D)
        bias = self.bias - weight @ self.mean
        maps = torch.einsum("bdhw,cd->bchw", features, weight) + bias[:, None, None]
        return F.interpolate(maps, size, mode="bilinear", align_corners=False)


def train_heads(
    table: np.ndarray,
    truth: np.ndarray,
    rows: np.ndarray,
    task: Task,
    rates: Sequence[float],
    recipe: Any,
    device: torch.device,
) -> list[DenseHead]:
    """Train one head per learning rate in ``rates``, by AdamW on the samples ``rows``.

    All heads see the same pixels, drawn by ``train.seed``. Each follows the recipe's schedule with
    its own peak rate.

    Args:
        table: (N, D, h, w); truth (N, H, W).
        recipe: a :class:`~mimsuite.methods.dense.DenseRecipe`.
    """
    mean, scale = _statistics(table, rows)
    mean, scale = mean.to(device), scale.to(device)
    width = table.shape[1]
    weights = [torch.zeros(task.channels, width, device=device) for _ in rates]
    begin = task.start(truth[rows])
    biases = [torch.full((task.channels,), begin, device=device) for _ in rates]
    groups = []
    for weight, bias in zip(weights, biases, strict=True):
        weight.requires_grad_()
        bias.requires_grad_()
        groups.append({"params": [weight], "weight_decay": recipe.optim.weight_decay})
        groups.append({"params": [bias], "weight_decay": 0.0})
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=recipe.optim.betas, eps=recipe.optim.eps)
    batch = min(recipe.train.global_batch, len(rows))
    per_epoch = math.ceil(len(rows) / batch)
    steps = max(1, round(recipe.schedule.epochs * per_epoch))
    seed, pixels = recipe.train.seed, recipe.target.pixels
    with torch.enable_grad():
        for step, chosen in enumerate(_batches(rows, batch, steps, seed)):
            drawn = _draw(table, truth, chosen, pixels, keyed_rng(seed, "dense pixels", step))
            known = task.known(drawn[1])  # on the host: avoids a device synchronisation
            x, y = (part[known].to(device) for part in drawn)
            if not len(y):
                continue
            x = (x - mean) * scale  # (M, D)
            outputs = torch.einsum("md,hcd->mhc", x, torch.stack(weights)) + torch.stack(biases)
            optimizer.zero_grad()
            task.losses(outputs, y).sum().backward()
            for number, group in enumerate(optimizer.param_groups):
                group["lr"] = rate_at(recipe.schedule, rates[number // 2], step, per_epoch)
            optimizer.step()
    return [
        DenseHead(weight.detach(), bias.detach(), mean, scale)
        for weight, bias in zip(weights, biases, strict=True)
    ]


def _batches(rows: np.ndarray, batch: int, steps: int, seed: int) -> Iterator[np.ndarray]:
    """Sample numbers of each step; an epoch has every sample once, in equal batches."""
    cuts = math.ceil(len(rows) / batch)
    for step in range(steps):
        epoch, cut = divmod(step, cuts)
        if cut == 0:
            order = keyed_rng(seed, "dense probe", epoch).permutation(rows)
        yield np.sort(order[cut * len(rows) // cuts : (cut + 1) * len(rows) // cuts])


def _draw(
    table: np.ndarray, truth: np.ndarray, rows: np.ndarray, pixels: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """(M, D) features at pixels drawn with replacement, and their (M,) truth."""
    height, width = truth.shape[1:]
    at = rng.integers(height * width, size=(len(rows), pixels))
    y = torch.from_numpy(np.take_along_axis(truth[rows].reshape(len(rows), -1), at, axis=1))
    centres = np.stack([(at % width + 0.5) / width, (at // width + 0.5) / height], axis=-1)
    grid = torch.from_numpy(centres * 2 - 1).float()[:, :, None]  # (b, P, 1, 2) in [-1, 1]
    features = torch.from_numpy(table[rows]).float()  # (b, D, h, w)
    # As F.interpolate with align_corners=False: a patch's value is at its centre.
    found = F.grid_sample(features, grid, padding_mode="border", align_corners=False)
    return found[..., 0].transpose(1, 2).flatten(0, 1), y.flatten()  # (b, D, P, 1) -> (M, D)


def _statistics(table: np.ndarray, rows: np.ndarray) -> tuple[Tensor, Tensor]:
    """Mean and 1 / deviation of each feature over all patches of the samples ``rows``."""
    total = np.zeros(table.shape[1])
    squares = np.zeros_like(total)
    for chunk in np.array_split(rows, max(1, len(rows) // 64)):
        part = table[chunk].astype(np.float64)
        total += part.sum((0, 2, 3))
        squares += np.square(part).sum((0, 2, 3))
    count = len(rows) * math.prod(table.shape[2:])
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
    constant = deviation <= 1e-6 * np.abs(mean) + 1e-12
    scale = np.divide(1, deviation, out=np.zeros_like(mean), where=~constant)
    return torch.from_numpy(mean).float(), torch.from_numpy(scale).float()
