"""Statistics of latents: one mean and one variance per entry (C, h, w), for generative models.

``exact`` statistics are those of all samples. ``momentum`` ones follow the batches as published
code does, so that only the last thirty or so count.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mimsuite.errors import UserError

_EPS = 1e-5


@dataclass(frozen=True)
class LatentStatistics:
    """Mean and variance of latents; ``None`` stands for 0 and 1."""

    mean: Tensor | None = None
    variance: Tensor | None = None

    def normalize(self, latents: Tensor) -> Tensor:
        """(B, C, h, w) -> the same with zero mean and unit variance per entry."""
        if self.mean is not None:
            latents = latents - self.mean.to(latents)
        if self.variance is not None:
            latents = latents / (self.variance.to(latents) + _EPS).sqrt()
        return latents

    def denormalize(self, latents: Tensor) -> Tensor:
        """The inverse of :meth:`normalize`."""
        if self.variance is not None:
            latents = latents * (self.variance.to(latents) + _EPS).sqrt()
        return latents if self.mean is None else latents + self.mean.to(latents)


class ExactStatistics:
    """Mean and biased variance of all samples, by Welford's sums in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: Tensor = torch.zeros((), dtype=torch.float64)
        self._squares: Tensor = torch.zeros((), dtype=torch.float64)

    def add(self, latents: Tensor) -> None:
        """Add a batch (B, ...)."""
        latents, added = latents.double(), ExactStatistics()
        added.count, added.mean = len(latents), latents.mean(0)
        added._squares = ((latents - added.mean) ** 2).sum(0)
        self.merge(added)

    def merge(self, other: ExactStatistics) -> None:
        """Add what another one has seen."""
        if not other.count:
            return
        total, apart = self.count + other.count, other.mean - self.mean
        between = apart**2 * (self.count * other.count / total)
        self._squares = self._squares + other._squares + between
        self.mean = self.mean + apart * (other.count / total)
        self.count = total

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; the inverse of :meth:`restored`."""
        lists = {"mean": self.mean.tolist(), "squares": self._squares.tolist()}
        return {"count": self.count, **lists}

    @classmethod
    def restored(cls, record: dict[str, Any]) -> ExactStatistics:
        """From :meth:`as_dict`."""
        made = cls()
        made.count = int(record["count"])
        made.mean, made._squares = (
            torch.tensor(record[name], dtype=torch.float64) for name in ("mean", "squares")
        )
        return made

    def statistics(self) -> LatentStatistics:
        """Those of all that was added, float32."""
        return LatentStatistics(self.mean.float(), (self._squares / self.count).float())


class MomentumStatistics:
    """Running mean and variance from 0 and 1, as in published code."""

    def __init__(self, shape: tuple[int, ...], momentum: float = 0.1) -> None:
        self.momentum = momentum
        self.mean, self.variance = torch.zeros(shape), torch.ones(shape)

    def add(self, latents: Tensor) -> None:
        """Add a batch (B, ...)."""
        self.mean = torch.lerp(self.mean, latents.mean(0), self.momentum)
        spread = latents.var(0, unbiased=False)
        self.variance = torch.lerp(self.variance, spread, self.momentum)

    def statistics(self) -> LatentStatistics:
        """The running values."""
        return LatentStatistics(self.mean, self.variance)


def merged(means: Tensor, variances: Tensor) -> LatentStatistics:
    """Statistics over equal parts, such as ranks, each (parts, ...)."""
    mean = means.mean(0)
    between = (means**2).mean(0) - mean**2
    return LatentStatistics(mean, (variances.mean(0) + between).clamp_min(0))


def read_statistics(path: str, key: str, shape: tuple[int, ...]) -> LatentStatistics:
    """Statistics of a file with ``mean`` and ``var``, either of which may be missing.

    Args:
        key: recipe key that names the file, for messages.
        shape: (C, h, w) of a latent.

    Raises:
        UserError: no such file, or statistics of other latents.
    """
    from mimsuite.weights.files import read_weights_file

    if not Path(path).exists():
        raise UserError(f"{key}={path}: no such file; it should hold the tensors mean and var")
    found = read_weights_file(Path(path)).tensors
    if not found.keys() & {"mean", "var"}:
        raise UserError(f"{key}={path} holds neither mean nor var")
    for name in ("mean", "var"):
        if name in found and tuple(found[name].shape) != shape:
            raise UserError(
                f"{key}={path}: {name} is {tuple(found[name].shape)}, latents are {shape}"
            )
    return LatentStatistics(found.get("mean"), found.get("var"))
