"""Views of radiance grids: ``grid`` (4, R, R, R), colour and opacity, and ``size`` (3,).

Scenes differ in size; they are zero-padded at the far end of each axis, and ``size`` is the size
before padding. The targets of labelled scenes are in :mod:`~mimsuite.data.volume.truth`.

Letters: R voxels per side of the view, (X, Y, Z) scene size, z up.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.config.keys.shared import Recipe
from mimsuite.config.keys.volume import GridAugmentSection
from mimsuite.data.views import Views
from mimsuite.data.volume.decode import RadianceGrid
from mimsuite.data.volume.truth import Scene, padded, truth_of
from mimsuite.errors import UserError
from mimsuite.targets.radiance import opacity

_RAW_SIDE = 6  # cells per side of the coarse grid, the raw features of a scene


class GridViews(Views):
    """Views by the recipe's ``augment:``, padded to ``model.encoder.resolution``."""

    main = "grid"

    def __init__(self, recipe: Recipe) -> None:
        augment: object = recipe.augment
        assert isinstance(augment, GridAugmentSection)
        self.augment = augment
        self.side: int = recipe.model.encoder.resolution
        self.truth = truth_of(getattr(recipe, "target", None), self.side)

    def train(self, sample: RadianceGrid, rng: np.random.Generator) -> dict[str, Tensor]:
        """Randomly rotate by 90 degrees about z, mirror along x and mirror along y, each with
        probability 1/2; then, if the recipe asks for it, rotate and scale slightly.

        Raises:
            UserError: the scene is larger than the view, or its kind of density is unknown.
            CorruptSample: the scene lacks the labels to be learnt.
        """
        scene = self._scene(sample)
        if rng.random() < self.augment.rotate:
            scene = scene.quarter_turn()
        for axis in (0, 1):
            if rng.random() < self.augment.flip:
                scene = scene.mirror(axis)
        if self.augment.turn_scale and rng.random() < self.augment.turn_scale:
            most = math.radians(self.augment.turn_degrees)
            scene = scene.turn_and_scale(rng.uniform(-most, most), rng.uniform(*self.augment.scale))
        return self._views(scene)

    def evaluate(self, sample: RadianceGrid) -> dict[str, Tensor]:
        """The scene unchanged; raises as :meth:`train`."""
        return self._views(self._scene(sample))

    def require_fit(self, sample: RadianceGrid) -> None:
        self.evaluate(sample)

    def normalizer(self, device: torch.device | str) -> Callable[[Batch], Batch]:
        return _Moved(device)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        own = {"grid": (4, self.side, self.side, self.side), "size": (3,)}
        return own | self.truth.shapes()

    def raw(self, batch: Batch) -> Tensor:
        """(B, 864): colour and opacity averaged over a 6 x 6 x 6 grid."""
        return torch.nn.functional.adaptive_avg_pool3d(batch.views["grid"], _RAW_SIDE).flatten(1)

    def _scene(self, sample: RadianceGrid) -> Scene:
        """The scene with density converted to opacity."""
        kind = sample.density_kind or self.augment.density_kind
        if kind is None:
            raise UserError(
                "its density may be log, linear or alpha and the file does not say: set "
                "augment.density_kind"
            )
        delta = self.augment.delta if sample.delta is None else sample.delta
        alpha = opacity(sample.values[..., 3:], kind, delta)
        grid = torch.cat([sample.values[..., :3], alpha], dim=-1).permute(3, 0, 1, 2)
        return self.truth.chosen(Scene(grid, sample.boxes, sample.labels))

    def _views(self, scene: Scene) -> dict[str, Tensor]:
        seen = self.truth.seen(scene)
        size = torch.tensor(seen.shape[1:])
        return {"grid": padded(seen, self.side), "size": size} | self.truth.views(scene)


class _Moved:
    """Moves a batch to the device; values are unchanged."""

    def __init__(self, device: torch.device | str) -> None:
        self.device = device

    def __call__(self, batch: Batch) -> Batch:
        batch = batch.to(self.device)
        views = {**batch.views, "grid": batch.views["grid"].float()}
        return replace(batch, views=views)
