"""Operations of the backward pass of convolutions, which torch's counter takes for dense ones.

FLOPs count a multiply and an add as two.
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


# For `FlopCounterMode(custom_mapping=...)`.
CORRECTED = {torch.ops.aten.convolution_backward: convolution_backward}
