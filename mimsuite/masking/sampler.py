"""Base class of mask samplers: keyed noise in, mask out."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mimsuite.masking.mask import TokenMask
from mimsuite.noise import Noise


class Sampler:
    """Base of samplers.

    Attributes:
        needs_guide: whether it needs a ``guide``, such as attention or coordinates.
        on_host: whether it computes masks on the host, from noise computed there.
    """

    needs_guide = False
    on_host = False

    def __init__(self, section: Any) -> None:
        self.section = section

    def noise_width(self, grid: tuple[int, ...]) -> int:
        """Number of uniform numbers for a sample's mask; one per token by default."""
        return math.prod(grid)

    def __call__(
        self, noise: Tensor, grid: tuple[int, ...], guide: Tensor | None = None
    ) -> TokenMask:
        """The mask of a batch.

        Args:
            noise: (B, ``noise_width(grid)``) float32 in (0, 1), keyed by sample and step.
            grid: tokens along each axis; N is their product.
            guide: (B, N) float32 weights where ``needs_guide``.
        """
        raise NotImplementedError

    def require_reachable(self, grid: tuple[int, int]) -> None:
        """Raise ``UserError`` for a mask count that this sampler cannot reach on ``grid``."""

    def sample(self, noise: Noise, grid: tuple[int, ...], guide: Tensor | None = None) -> TokenMask:
        """The mask of a batch from its keyed noise of purpose ``mask``, on the noise's device."""
        width = self.noise_width(grid)
        if not self.on_host:
            return self(noise.rows("mask", width), grid, guide)
        return on_device(self(noise.on_host("mask", width), grid, guide), noise.device)


def on_device(mask: TokenMask, device: torch.device) -> TokenMask:
    """Copy a mask from the host to the device without waiting for the device."""
    # Copies from pageable memory would wait for the device.
    return (mask.pin_memory() if device.type == "cuda" else mask).to(device)
