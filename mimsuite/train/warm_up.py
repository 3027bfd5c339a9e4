"""A discarded backward pass before the first step of every start.

DDP sums gradients in buckets, and changes the bucket layout after the first backward pass of a
process. The summation order over ranks depends on a number's position in its bucket, and with three
or more ranks the order changes the last bits. A resumed process would therefore sum its first
gradients in another order than an uninterrupted one. After a warm-up both use the second layout in
all steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.cluster.replica import Replica
from mimsuite.methods.base import Method, Progress
from mimsuite.noise import Noise
from mimsuite.train.precision import Precision
from mimsuite.train.state import generator_tensors, load_generators
from mimsuite.train.step import run_method


def warm_up(
    method: Method,
    batch: Batch,
    noise: Noise,
    precision: Precision,
    gather: Callable[[Tensor], Tensor],
    replica: Replica,
    progress: Progress,
) -> None:
    """Run forward and backward as in :func:`.step.train_step`, on all ranks together.

    Nothing is updated: not the weights, optimizer, moving averages or log sums. Buffers (running
    statistics) and generators are restored.
    """
    with _kept(method):
        with precision.autocast():
            output = run_method(method, batch, noise, gather, replica, progress)
        precision.backward(output.loss)
    method.zero_grad(set_to_none=True)


@contextmanager
def _kept(method: Method) -> Iterator[None]:
    """Context that restores the method's buffers and this process's generators afterwards."""
    generators = generator_tensors()
    buffers = [(buffer, buffer.clone()) for buffer in method.buffers()]
    try:
        yield
    finally:  # `train.micro_batch=auto` tries sizes for which memory runs out
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        load_generators(generators)
