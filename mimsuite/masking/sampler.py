"""What a sampler is: keyed noise in, mask out."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from mimsuite.masking.mask import TokenMask


class Sampler:
    """Base of samplers.

    Attributes:
        needs_guide: whether it draws by a ``guide``, as attention or coordinates.
    """

    needs_guide = False

    def __init__(self, section: Any) -> None:
        self.section = section

    def noise_width(self, grid: tuple[int, ...]) -> int:
        """Uniform numbers that a sample's mask is drawn from; one a token by default."""
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
