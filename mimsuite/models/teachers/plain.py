"""Teachers whose last norm has no weight and no bias, so that all tokens are of one scale.

Letters: B batch, N tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from torch import nn

from mimsuite.models.teachers.base import Backbone, TeacherFeatures, Wanted


class WithNorm(Backbone):
    """A network without a last norm, such as a convolutional one, and a layer norm after it."""

    def __init__(self, network: Backbone) -> None:
        super().__init__()
        self.network = network
        self.statistics, self.notes = network.statistics, network.notes

    def forward(self, images: Any, wanted: Wanted) -> TeacherFeatures:
        found = self.network(images, wanted)
        return replace(found, tokens=F.layer_norm(found.tokens, found.tokens.shape[-1:]))


def load(loader: Callable[[bool], Backbone], weights: bool = True) -> Backbone:
    """The network of ``loader`` with a plain last norm."""
    network = loader(weights)
    norm = network.last_norm()
    if not isinstance(norm, nn.LayerNorm):
        return WithNorm(network)
    if norm.elementwise_affine:
        norm.weight.data.fill_(1.0)
        if norm.bias is not None:
            norm.bias.data.zero_()
    return network
