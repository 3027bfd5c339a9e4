"""One optimizer step: micro-batches forward and backward, clip, guard, update.

Nothing here waits for the device: losses and norms stay tensors until the log reads them, and the
fused optimizer itself skips a step whose loss or gradient norm is not finite.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from mimsuite.batch import Batch
from mimsuite.cluster.peers import ALONE, Peers
from mimsuite.cluster.replica import Replica
from mimsuite.cluster.sharding import local
from mimsuite.methods.base import Method, Output, Progress, no_gather
from mimsuite.noise import Noise
from mimsuite.train.optim import trained
from mimsuite.train.precision import Precision


@dataclass(frozen=True)
class StepResult:
    """Measurements of a step; 0-d tensors on the device.

    Attributes:
        loss: mean over the micro-batches of all ranks.
        terms: the method's named terms, averaged like ``loss``.
        grad_norm: global L2 norm before clipping.
        skipped: 1.0 if the update was skipped because loss or norm was not finite.
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
    clip_parts: Sequence[str] = ("",),
    peers: Peers = ALONE,
    replica: Replica | None = None,
    loss_scope: str = "global",
    progress: Progress = Progress(),  # noqa: B008 - frozen
    before_update: Callable[[], None] = lambda: None,
) -> StepResult:
    """Run one optimizer step; its gradients stay in place.

    Args:
        method: in train mode.
        micro_batches: ``accumulation`` normalised batches on the method's device; read one by
            one, while the loader may still be decoding the next.
        noise: micro-batch -> its keyed noise at this step.
        clip_grad: largest global gradient norm.
        clip_parts: prefixes of parameter names; the gradients of each are clipped separately.
        peers: the ranks that share the global batch; ``micro_batches`` are this rank's.
        replica: the method's forward pass with gradients averaged over ranks.
        loss_scope: how losses with a ``weight`` are averaged: ``global`` = weighted mean over all
            samples of the step, ``rank`` = plain mean of the micro-batches' losses.
        progress: training progress before this step, for the method's schedules.
        before_update: called before weights and optimizer state change.
    """
    replica = replica or Replica(method)
    # Sharded weights are gathered anew for each micro-batch, and so are their copies.
    one_cast = nullcontext() if replica.sharded else precision.one_cast()
    optimizer.zero_grad(set_to_none=True)
    sums: list[Tensor] = []  # per micro-batch: weight, weighted loss, weighted terms
    names: list[str] = []
    weighted = False
    with one_cast:
        for number, batch in enumerate(micro_batches, start=1):
            rows = noise(batch)
            with nullcontext() if number == accumulation else replica.without_sync():
                with precision.autocast():
                    output = run_method(method, batch, rows, peers.gather, replica, progress)
                share = None if output.weight is None else output.weight.detach().float()
                if loss_scope == "rank":
                    share = None
                weighted = share is not None
                loss = output.loss / accumulation if share is None else output.loss * share
                precision.backward(loss)
            names = list(output.terms)
            values = [output.loss.detach(), *(output.terms[name].float() for name in names)]
            if share is None:
                share = torch.full_like(values[0], 1 / accumulation)
            sums.append(torch.stack([share, *(value * share for value in values)]))
    precision.unscale(optimizer)
    # One small reduction, so that all ranks log and check the loss of the global batch.
    weight, *means = peers.mean(torch.stack(sums).sum(0))
    if weighted:
        means = [value / weight for value in means]
        _divide_gradients(trained(optimizer), weight)
    loss, *terms = means
    grad_norm = _grad_norm(trained(optimizer))
    if clip_grad is not None:
        for part in clip_parts:
            named = (p for name, p in method.named_parameters() if name.startswith(part))
            own = [p for p in named if p.grad is not None]
            norm = grad_norm if part == "" else _grad_norm(own)
            nn.utils.clip_grads_with_norm_(own, clip_grad, norm)
    skipped = (~torch.isfinite(loss + grad_norm)).float()
    before_update()
    precision.step(optimizer, skipped)
    with torch.no_grad():
        method.after_step(replace(progress, skipped=skipped))
    return StepResult(loss, dict(zip(names, terms, strict=True)), grad_norm, skipped)


def run_method(
    method: Method,
    batch: Batch,
    noise: Noise,
    gather: Callable[[Tensor], Tensor] = no_gather,
    forward: Callable[..., Output] | None = None,
    progress: Progress | None = None,
) -> Output:
    """Run a batch through a method: prepare and mask without gradient, then forward.

    Args:
        gather: all-gather over ranks, for methods that contrast samples.
        forward: replaces the method's forward pass.
        progress: training progress, for the method's schedules.
    """
    with torch.no_grad():
        context = method.prepare(batch, noise, gather)
        if progress is not None:
            context = replace(context, progress=progress)
        masks = method.mask(batch, noise, context)
    return (forward or method)(batch, masks, context)


def _divide_gradients(parameters: list[Tensor], by: Tensor) -> None:
    """Divide the gradients of weighted sums by the sum of weights."""
    gradients = [local(p.grad) for p in parameters if p.grad is not None]
    torch._foreach_div_(gradients, by)


def _grad_norm(parameters: Sequence[Tensor]) -> Tensor:
    """Global L2 norm of the gradients."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if gradients and gradients[0].is_cpu and not isinstance(gradients[0], DTensor):
        # A dot product sums in blocks: for 3 million values its error is 20 times smaller than
        # that of torch's norm, which sums sequentially on a CPU.
        flat = [g.flatten() for g in gradients]
        norm = torch.stack([torch.dot(g, g) for g in flat]).sum().sqrt()
    else:
        norm = nn.utils.get_total_norm(gradients)
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()  # over all shards
    return norm
