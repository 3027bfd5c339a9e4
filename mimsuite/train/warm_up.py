"""A backward pass that is thrown away, before the first step of every start.

DDP adds gradients up in buckets. It begins with one layout of them and takes another after the
first backward pass of a process. Which ranks' parts of a number are added first depends on its
place in a bucket, and of three or more summands the order shows in the last bits. So a resumed
process would add its first gradients up in another order than a process that went on. After a
warm-up both have the second layout in all of their steps.
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
    """Forward and backward as in a step, by all ranks together; see :func:`.step.train_step`.

    No update follows: weights, optimizer, moving averages and the sums of the log do not take
    part. Buffers (running statistics) and generators are put back.
    """
    with _kept(method):
        with precision.autocast():
            output = run_method(method, batch, noise, gather, replica, progress)
        precision.backward(output.loss)
    method.zero_grad(set_to_none=True)


@contextmanager
def _kept(method: Method) -> Iterator[None]:
    """Put the method's buffers and this process's generators back after the block."""
    generators = generator_tensors()
    buffers = [(buffer, buffer.clone()) for buffer in method.buffers()]
    yield
    with torch.no_grad():
        for buffer, before in buffers:
            buffer.copy_(before)
    load_generators(generators)
