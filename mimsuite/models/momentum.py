"""Moving averages of weights: the momentum teacher of self-distillation (BYOL, arXiv:2006.07733;
DINO, arXiv:2104.14294), and the code that it shares with the moving average of a run.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mimsuite.cluster.sharding import local

_AT_ONCE = 32 << 20  # bytes of differences held at once


@torch.no_grad()
def follow(
    averages: Sequence[Tensor], live: Sequence[Tensor], momentum: float, skipped: Tensor
) -> None:
    """``average = momentum average + (1 - momentum) live`` for each pair, in place and fused.

    Each rank updates its own part of sharded tensors.

    Args:
        skipped: 0-d float on the device; 1 leaves all averages unchanged.
    """
    if not averages:
        return
    weight = (1 - momentum) * (1 - skipped)
    # A skipped step does not update parameters, so they are finite and a weight of 0 is safe.
    own, new = [local(average) for average in averages], [local(tensor) for tensor in live]
    if own[0].is_cpu:
        torch._foreach_lerp_(own, new, [weight] * len(new))
    else:
        follow_fused(own, new, weight)


def follow_fused(own: Sequence[Tensor], new: Sequence[Tensor], weight: Tensor) -> None:
    """``own += weight (new - own)`` in a few kernels for all tensors together.

    With a weight on the device ``_foreach_lerp_`` starts a kernel for each tensor.
    """
    for some, targets in _parts(list(zip(own, new, strict=True))):
        apart = torch._foreach_sub(targets, some)
        torch._foreach_mul_(apart, weight)
        torch._foreach_add_(some, apart)


def _parts(pairs: Sequence[tuple[Tensor, Tensor]]) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """Consecutive tensors, at most ``_AT_ONCE`` bytes together unless a single one is larger."""
    own: list[Tensor] = []
    new: list[Tensor] = []
    for average, tensor in pairs:
        if own and sum(one.nbytes for one in own) + average.nbytes > _AT_ONCE:
            yield own, new
            own, new = [], []
        own.append(average)
        new.append(tensor)
    yield own, new


@torch.no_grad()
def follow_module(average: nn.Module, live: nn.Module, momentum: float, skipped: Tensor) -> None:
    """Apply :func:`follow` to the parameters of the same name."""
    sources = dict(live.named_parameters())
    averages = dict(average.named_parameters())
    follow(list(averages.values()), [sources[name] for name in averages], momentum, skipped)


def rising(step: int, start: float, end: float, total: float) -> float:
    """Linear momentum schedule: ``start`` at step 0, ``end`` at step ``total`` and after."""
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
    """A momentum teacher: an untrained copy of a module that follows its weights.

    As a part of the method it is saved in checkpoints, and FSDP shards it like the original. It is
    always in eval mode. Its buffers do not follow the original's.

    Example:
        >>> self.teacher = MomentumCopy(self.encoder)  # in the method's __init__
        >>> self.teacher.follow(self.encoder, 0.996, progress.skipped)  # in its after_step
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = copy.deepcopy(module).requires_grad_(False).eval()

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """Output of the copy, without gradient."""
        with torch.no_grad():
            return self.module(*inputs, **options)

    def train(self, mode: bool = True) -> MomentumCopy:
        """Ignore ``mode``: the copy stays in eval mode."""
        return super().train(False)

    def follow(self, module: nn.Module, momentum: float, skipped: Tensor) -> None:
        """Update the copy after an optimizer step; see :func:`follow`.

        Args:
            module: the original; parameters that the copy lacks are ignored.
            momentum: weight of the copy's old values, in [0, 1].
            skipped: 0-d float; 1 leaves the copy unchanged.
        """
        follow_module(self.module, module, momentum, skipped)
