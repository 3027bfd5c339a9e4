"""One optimizer step: micro-batches forward and backward, clip, guard, update.

Nothing here waits for the device: losses and norms stay tensors until the log asks for them, and a
step whose loss or gradient norm is not finite is skipped by the fused optimizer itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mimsuite.batch import Batch
from mimsuite.cluster.peers import ALONE, Peers, Replica
from mimsuite.methods.base import Method, Output, alone
from mimsuite.noise import Noise
from mimsuite.train.optim import trained
from mimsuite.train.precision import Precision


@dataclass(frozen=True)
class StepResult:
    """What a step measured; 0-d tensors on the device.

    Attributes:
        loss: mean over the micro-batches.
        terms: the method's named terms, likewise.
        grad_norm: global L2 norm before clipping.
        skipped: 1.0 where the update was left out since loss or norm was not finite.
    """

    loss: Tensor
    terms: dict[str, Tensor]
    grad_norm: Tensor
    skipped: Tensor


def train_step(
    method: Method,
    optimizer: Optimizer,
    micro_batches: Iterable[Batch],
    accumulation: int,
    *,
    noise: Callable[[Batch], Noise],
    precision: Precision,
    clip_grad: float | None = None,
    peers: Peers = ALONE,
    replica: Replica | None = None,
) -> StepResult:
    """Run one optimizer step and leave the gradients of it in place.

    Args:
        method: in train mode.
        micro_batches: ``accumulation`` normalised batches on the method's device; taken one by
            one, so that a loader may still be decoding the next.
        noise: keyed noise of a micro-batch at this step.
        clip_grad: largest global gradient norm.
        peers: the ranks that share the global batch; ``micro_batches`` are this rank's.
        replica: the method's forward pass with gradients averaged over ranks.
    """
    replica = replica or Replica(method)
    optimizer.zero_grad(set_to_none=True)
    losses: list[Tensor] = []
    terms: dict[str, Tensor] = {}
    for number, batch in enumerate(micro_batches, start=1):
        rows = noise(batch)
        with nullcontext() if number == accumulation else replica.without_sync():
            with precision.autocast():
                output = run_method(method, batch, rows, peers.gather, replica)
            precision.backward(output.loss / accumulation)
        losses.append(output.loss.detach())
        for name, value in output.terms.items():
            terms[name] = terms.get(name, 0) + value.float() / accumulation
    precision.unscale(optimizer)
    # One small reduction: all ranks log, and judge, the loss of the global batch.
    loss, *means = peers.mean(torch.stack([torch.stack(losses).mean(), *terms.values()]))
    terms = dict(zip(terms, means, strict=True))
    grad_norm = _grad_norm(trained(optimizer), clip_grad)
    skipped = (~torch.isfinite(loss + grad_norm)).float()
    precision.step(optimizer, skipped)
    return StepResult(loss, terms, grad_norm, skipped)


def run_method(
    method: Method,
    batch: Batch,
    noise: Noise,
    gather: Callable[[Tensor], Tensor] = alone,
    forward: Callable[..., Output] | None = None,
) -> Output:
    """Prepare and mask without gradient, then forward: the way of a batch through any method.

    Args:
        gather: all-gather over ranks for methods that contrast samples.
        forward: stands in for the method's own forward pass.
    """
    with torch.no_grad():
        context = method.prepare(batch, noise, gather)
        masks = method.mask(batch, noise, context)
    return (forward or method)(batch, masks, context)


def _grad_norm(parameters: list[Tensor], clip: float | None) -> Tensor:
    """Global L2 norm of the gradients; clips them in place where a limit is given."""
    if clip is not None:
        return nn.utils.clip_grad_norm_(parameters, clip)
    return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
