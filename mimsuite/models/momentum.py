"""Averages of weights over steps: the momentum teacher of self-distillation (BYOL,
arXiv:2006.07733; DINO, arXiv:2104.14294), and what the moving average of a run shares with it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mimsuite.cluster.sharding import local


@torch.no_grad()
def follow(
    averages: Sequence[Tensor], live: Sequence[Tensor], momentum: float, skipped: Tensor
) -> None:
    """``average = momentum average + (1 - momentum) live``, in place and fused, for each pair.

    Of sharded tensors each rank moves its own part.

    Args:
        skipped: 0-d float; 1 leaves all averages as they are, decided on the device.
    """
    if not averages:
        return
    weight = (1 - momentum) * (1 - skipped)
    # The optimizer leaves parameters alone in a skipped step, so they are finite.
    torch._foreach_lerp_(
        [local(average) for average in averages],
        [local(tensor) for tensor in live],
        [weight] * len(live),
    )


@torch.no_grad()
def follow_module(average: nn.Module, live: nn.Module, momentum: float, skipped: Tensor) -> None:
    """Every parameter of ``average`` follows that of the same name; see :func:`follow`."""
    theirs = dict(live.named_parameters())
    mine = dict(average.named_parameters())
    follow(list(mine.values()), [theirs[name] for name in mine], momentum, skipped)


def rising(step: int, start: float, end: float, total: float) -> float:
    """Momentum of a step, on a straight line: ``start`` at the first, number 0, ``end`` at number
    ``total`` and behind it."""
    return start + (end - start) * min(step / total, 1.0)


def warm_cosine(
    step: int,
    *,
    start: float,
    peak: float,
    end: float,
    warmup: int,
    total: int,
    share: float = 1.0,
) -> float:
    """A straight line from ``start`` to ``peak``, then half a cosine towards ``end``.

    Args:
        step: from 0.
        peak: of step ``warmup - 1`` and of the next one.
        end: where the cosine would end at step ``total``; it holds from there on.
        warmup: steps of the line; of a single one the value is ``start``.
        share: of the cosine that is walked; below 1 the last steps are short of ``end``.
    """
    if step < warmup:
        return start + (peak - start) * step / (warmup - 1) if warmup > 1 else start
    if step >= total:
        return end
    progress = share * (step - warmup) / (total - warmup)
    return end + 0.5 * (peak - end) * (1.0 + math.cos(math.pi * progress))


class MomentumCopy(nn.Module):
    """A copy of a module that is not trained but follows it: a momentum teacher.

    It is part of the method, so checkpoints hold it and FSDP shards it as it does the original.
    It is always in eval mode. Buffers stay those of the copy.

    Example:
        >>> self.teacher = MomentumCopy(self.encoder)  # in the method's __init__
        >>> self.teacher.follow(self.encoder, 0.996, progress.skipped)  # in its after_step
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = copy.deepcopy(module).requires_grad_(False).eval()

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """What the copy makes of the inputs, without gradient."""
        with torch.no_grad():
            return self.module(*inputs, **options)

    def train(self, mode: bool = True) -> MomentumCopy:
        """Stays in eval mode."""
        return super().train(False)

    def follow(self, module: nn.Module, momentum: float, skipped: Tensor) -> None:
        """Move towards the original after an optimizer step; see :func:`follow`.

        Args:
            module: the original; its parameters that this copy lacks are ignored.
            momentum: share of the old weights that is kept, in [0, 1].
        """
        follow_module(self.module, module, momentum, skipped)
