"""Masking of cubes of volume tokens (NeRF-MAE, Irshad et al., arXiv:2404.01300).

A cube is one attention window of the first stage, so a window is entirely visible or entirely
masked.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from mimsuite.config.keys.volume import VolumeMaskSection
from mimsuite.masking.mask import TokenMask
from mimsuite.masking.sampler import Sampler, on_device
from mimsuite.noise import Noise


class CubeSampler(Sampler):
    """Masks the cubes with the least noise; tokens outside whole cubes are never masked."""

    section: VolumeMaskSection

    def noise_width(self, grid: tuple[int, ...]) -> int:
        """One number per cube, in raster order."""
        a, b, c = self._cubes(grid)
        return a * b * c

    def __call__(
        self, noise: Tensor, grid: tuple[int, ...], guide: Tensor | None = None
    ) -> TokenMask:
        """Mask of (B, cubes) noise; every sample masks the same number of cubes."""
        count = round(noise.shape[1] * self.section.ratio)
        removed = noise.argsort(dim=1, stable=True).argsort(dim=1, stable=True) < count
        order = self._tokens(removed, grid).to(torch.uint8).argsort(dim=1, stable=True)
        return TokenMask.from_order(order, math.prod(grid) - count * self.section.cube**3, grid)

    def sample(self, noise: Noise, grid: tuple[int, ...], guide: Tensor | None = None) -> TokenMask:
        if self.section.draw == "exact":
            return super().sample(noise, grid, guide)
        one = self.thrown(noise.shared("mask", self.noise_width(grid)), grid)
        one = on_device(one, noise.device)
        batch = len(noise.index)
        return TokenMask(grid, one.visible.repeat(batch, 1), one.masked.repeat(batch, 1))

    def thrown(self, noise: np.ndarray, grid: tuple[int, ...]) -> TokenMask:
        """Mask of one sample: each cube is masked whose noise (cubes,) is below the ratio.

        Computed on the host, because the number of masked cubes decides tensor shapes.
        """
        side = self.section.cube
        cubes = (noise < self.section.ratio).reshape(self._cubes(grid))
        dense = np.zeros(grid, dtype=bool)
        a, b, c = (n * side for n in cubes.shape)
        dense[:a, :b, :c] = cubes.repeat(side, 0).repeat(side, 1).repeat(side, 2)
        visible, masked = (np.flatnonzero(flags)[None] for flags in (~dense, dense))
        return TokenMask(grid, torch.from_numpy(visible), torch.from_numpy(masked))

    def _cubes(self, grid: tuple[int, ...]) -> tuple[int, int, int]:
        a, b, c = (side // self.section.cube for side in grid)
        return a, b, c

    def _tokens(self, cubes: Tensor, grid: tuple[int, ...]) -> Tensor:
        """(B, cubes) bool -> (B, N) bool."""
        side = self.section.cube
        dense = torch.zeros(len(cubes), *grid, dtype=torch.bool, device=cubes.device)
        a, b, c = self._cubes(grid)
        whole = cubes.view(len(cubes), a, 1, b, 1, c, 1).expand(-1, a, side, b, side, c, side)
        dense[:, : a * side, : b * side, : c * side] = whole.reshape(
            len(cubes), a * side, b * side, c * side
        )
        return dense.flatten(1)
