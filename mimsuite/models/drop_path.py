"""Drop path: in training, whole residual branches of some samples are skipped (Huang et al.,
arXiv:1603.09382).

The draws are keyed noise, not the global generator. Letters: B batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from mimsuite.noise import Noise

Keep = tuple[Tensor, Tensor] | None  # (B,) factors of a block's two branches; ``None`` = 1


def drop_path(
    module: nn.Module, rate: float | Sequence[float], depth: int, noise: Noise | None
) -> list[Keep]:
    """The factors of ``depth`` blocks of ``module``; ``None`` where nothing is dropped.

    Args:
        rate: as of :func:`drop_path_factors`.
        noise: keyed noise; needed while training with a rate above 0.
    """
    drops = any(rate) if isinstance(rate, Sequence) else rate > 0
    if not module.training or not drops or not depth:
        return [None] * depth
    if noise is None:
        raise ValueError("drop_path > 0 needs keyed noise while training")
    return [*drop_path_factors(noise.rows("drop_path", 2 * depth), rate)]


def drop_path_factors(
    uniform: Tensor, rate: float | Sequence[float]
) -> list[tuple[Tensor, Tensor]]:
    """The (B,) factors of the two branches of each block.

    Args:
        uniform: (B, 2 * depth) keyed noise.
        rate: drop probability of the last block, growing linearly from 0 in the first, or that of
            each block.
    """
    depth = uniform.shape[1] // 2
    if isinstance(rate, float | int):
        steps = torch.linspace(0, rate, depth, dtype=uniform.dtype, device=uniform.device)
    else:
        steps = torch.tensor(rate, dtype=uniform.dtype, device=uniform.device)
    rates = steps.repeat_interleave(2)
    factors = (uniform >= rates) / (1 - rates)  # a branch survives with probability 1 - rate
    return [(factors[:, 2 * i], factors[:, 2 * i + 1]) for i in range(depth)]


def branch(x: Tensor, keep: Tensor | None, scale: Tensor | None = None) -> Tensor:
    """What a residual branch (B, ..., D) adds: scaled per channel, and dropped per sample."""
    if scale is not None:
        x = x * scale
    return x if keep is None else x * keep.view(-1, *[1] * (x.ndim - 1))


def residual(x: Tensor, keep: Tensor | None, compute: Callable[[Tensor | None], Tensor]) -> Tensor:
    """``x`` (B, ..., D) plus a residual branch, on a CPU computed for the kept samples only.

    A device computes all samples: how many are kept is not known there without waiting for it.

    Args:
        keep: (B,) factors; ``None`` = 1.
        compute: the branch of these samples, of all for ``None``.
    """
    if keep is not None and keep.device.type == "cpu" and not _without_values(keep):
        rows = torch.from_numpy(np.flatnonzero(keep.numpy()))
        if 0 < len(rows) < len(keep):
            added = branch(compute(rows), keep[rows])
            return x.index_add(0, rows, added.to(x.dtype))
    return x + branch(compute(None), keep)


def _without_values(tensor: Tensor) -> bool:
    """Whether a step is only counted or traced."""
    return isinstance(tensor, FakeTensor) or torch.compiler.is_compiling()
