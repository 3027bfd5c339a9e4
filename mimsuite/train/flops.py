"""What torch's counter miscounts: the backward pass of convolutions, and attention on a CPU.

It takes grouped convolutions for dense ones, and leaves out the CPU's fused attention, so that an
estimate would depend on which kernel this machine chooses. FLOPs count a multiply and an add as
two; what a fused kernel computes a second time to save memory does not count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

Shape = Sequence[int]


def convolution_backward(
    gradient: Shape,
    inputs: Shape,
    weight: Shape,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
    wanted: Sequence[bool],
    **_: Any,
) -> int:
    """As many operations as the forward pass for each of the two gradients that are ``wanted``.

    ``weight`` is (out, in / groups, ...) or, transposed, (in, out / groups, ...): a group's own.
    """
    pixels = inputs if transposed else gradient
    forward = 2 * math.prod(pixels) * math.prod(weight[1:])
    return forward * sum(map(bool, wanted[:2]))


def attention(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    """The two matrix products of (B, heads, N, D) queries with (B, heads, M, D) keys and values."""
    batch, heads, queries, width = query
    return 2 * batch * heads * queries * key[2] * (width + value[3])


def attention_backward(
    gradient: Shape, query: Shape, key: Shape, value: Shape, *_: Any, **__: Any
) -> int:
    """The two gradients of each of the two products."""
    return 2 * attention(query, key, value)


_aten = torch.ops.aten
# For `FlopCounterMode(custom_mapping=...)`.
CORRECTED = {
    _aten.convolution_backward: convolution_backward,
    _aten._scaled_dot_product_flash_attention_for_cpu: attention,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward,
}
