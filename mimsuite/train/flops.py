"""Corrections of torch's FLOP counter: backward of convolutions, and attention on a CPU.

torch's counter treats grouped convolutions as dense in backward, and ignores the CPU's fused
attention, so estimates would depend on the kernel that this machine selects. FLOPs count a multiply
and an add as two; recomputation inside a fused kernel does not count.
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
    """Each gradient in ``wanted`` (input, weight) costs as much as the forward pass.

    ``weight`` is (out, in / groups, ...) or, transposed, (in, out / groups, ...).
    """
    pixels = inputs if transposed else gradient
    forward = 2 * math.prod(pixels) * math.prod(weight[1:])
    return forward * sum(map(bool, wanted[:2]))


def attention(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    """Two matrix products: (B, heads, N, D) queries with (B, heads, M, D) keys and values."""
    batch, heads, queries, width = query
    return 2 * batch * heads * queries * key[2] * (width + value[3])


def attention_backward(
    gradient: Shape, query: Shape, key: Shape, value: Shape, *_: Any, **__: Any
) -> int:
    """Two gradients for each of the two matrix products."""
    return 2 * attention(query, key, value)


_aten = torch.ops.aten
# For `FlopCounterMode(custom_mapping=...)`.
CORRECTED = {
    _aten.convolution_backward: convolution_backward,
    _aten._scaled_dot_product_flash_attention_for_cpu: attention,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward,
}
