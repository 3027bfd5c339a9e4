"""Convolutions and attention are counted by what they compute, whichever kernel does it."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode

from mimsuite.train.flops import CORRECTED


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(8, 8, 5, padding=2, groups=8),
        nn.Conv2d(8, 12, 3, stride=2),
        nn.Conv2d(8, 12, 3, groups=4),
        nn.ConvTranspose2d(8, 6, 2, stride=2),
        nn.Conv1d(8, 4, 3),
    ],
    ids=str,
)
def test_each_gradient_costs_what_the_forward_pass_does(layer: nn.Module) -> None:
    sides = (9,) if isinstance(layer, nn.Conv1d) else (9, 9)
    with torch.device("meta"):
        image = torch.empty(2, 8, *sides, requires_grad=True)
    layer = layer.to("meta")

    def count(image: torch.Tensor) -> tuple[int, int]:
        with FlopCounterMode(display=False, custom_mapping=CORRECTED) as counter:
            out = layer(image)
            forward = counter.get_total_flops()
            out.sum().backward()
        return forward, counter.get_total_flops()

    forward, both = count(image)
    assert both == 3 * forward
    assert count(image.detach()) == (forward, 2 * forward)  # of the weights alone


@pytest.mark.parametrize("kernel", [SDPBackend.MATH, SDPBackend.FLASH_ATTENTION])
def test_every_kernel_of_the_cpu_counts_the_same(kernel: SDPBackend) -> None:
    with FakeTensorMode(), sdpa_kernel(kernel):
        query = torch.empty(2, 3, 5, 16, requires_grad=True)
        key, value = (torch.empty(2, 3, 7, 16, requires_grad=True) for _ in range(2))
        with FlopCounterMode(display=False, custom_mapping=CORRECTED) as counter:
            out = scaled_dot_product_attention(query, key, value)
            forward = counter.get_total_flops()
            out.sum().backward()
    products = 2 * (2 * 3) * 5 * 7 * 16
    assert forward == 2 * products
    assert counter.get_total_flops() == 6 * products
