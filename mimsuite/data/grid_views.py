"""Views of radiance grids: ``grid`` (4, R, R, R), colour and opacity, and ``size`` (3,).

Scenes differ in size; they are padded with nothing at the far end of each axis, and ``size`` says
where they end.

Letters: R voxels a side of the view, (X, Y, Z) of a scene, z up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.config.grids import GridAugmentSection
from mimsuite.config.sections import Recipe
from mimsuite.data.grid_decode import RadianceGrid
from mimsuite.data.grid_geometry import mirror, quarter_turn
from mimsuite.data.views import Views
from mimsuite.errors import UserError
from mimsuite.targets.radiance import opacity

_RAW_SIDE = 6  # cells along each side of the coarse grid that stands for a raw scene


class GridViews(Views):
    """Views by the recipe's ``augment:``, padded to ``model.encoder.resolution``."""

    main = "grid"

    def __init__(self, recipe: Recipe) -> None:
        augment: object = recipe.augment
        assert isinstance(augment, GridAugmentSection)
        self.augment = augment
        self.side: int = recipe.model.encoder.resolution

    def train(self, sample: RadianceGrid, rng: np.random.Generator) -> dict[str, Tensor]:
        """Turned by 90 degrees about z, mirrored along x, mirrored along y: each by a throw.

        Raises:
            UserError: a scene larger than the view, or one whose density is of an unknown kind.
        """
        grid = self._opaque(sample)
        if rng.random() < self.augment.rotate:
            grid, _ = quarter_turn(grid)
        for axis in (0, 1):
            if rng.random() < self.augment.flip:
                grid, _ = mirror(grid, axis)
        return self._padded(grid)

    def evaluate(self, sample: RadianceGrid) -> dict[str, Tensor]:
        """The scene as it is; raises as :meth:`train`."""
        return self._padded(self._opaque(sample))

    def normalizer(self, device: torch.device | str) -> Callable[[Batch], Batch]:
        return _Moved(device)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"grid": (4, self.side, self.side, self.side), "size": (3,)}

    def raw(self, batch: Batch) -> Tensor:
        """(B, 864): colour and opacity, averaged over the cells of a coarse grid."""
        return torch.nn.functional.adaptive_avg_pool3d(batch.views["grid"], _RAW_SIDE).flatten(1)

    def _opaque(self, sample: RadianceGrid) -> Tensor:
        """(4, X, Y, Z) colour and opacity."""
        kind = sample.density_kind or self.augment.density_kind
        if kind is None:
            raise UserError(
                "its density may be log, linear or alpha and the file does not say: set "
                "augment.density_kind"
            )
        delta = self.augment.delta if sample.delta is None else sample.delta
        alpha = opacity(sample.values[..., 3:], kind, delta)
        return torch.cat([sample.values[..., :3], alpha], dim=-1).permute(3, 0, 1, 2)

    def _padded(self, grid: Tensor) -> dict[str, Tensor]:
        _, x, y, z = grid.shape
        if max(x, y, z) > self.side:
            raise UserError(
                f"a scene of {x} x {y} x {z} voxels is larger than model.encoder.resolution "
                f"{self.side}: raise it, or export grids with a smaller --max-res"
            )
        whole = torch.zeros(4, self.side, self.side, self.side)
        whole[:, :x, :y, :z] = grid
        return {"grid": whole, "size": torch.tensor([x, y, z])}


class _Moved:
    """A batch on the device, its values as they are."""

    def __init__(self, device: torch.device | str) -> None:
        self.device = device

    def __call__(self, batch: Batch) -> Batch:
        batch = batch.to(self.device)
        views = {**batch.views, "grid": batch.views["grid"].float()}
        return replace(batch, views=views)
