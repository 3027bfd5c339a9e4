"""Views of point clouds: ``points`` (P, 3) float32, and the part labels ``parts`` (P,) int64.

Letters: N points in the stored cloud, P points in the view.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.config.keys.points import PointAugmentSection
from mimsuite.config.keys.shared import Recipe
from mimsuite.data.damage import CorruptSample
from mimsuite.data.points import geometry
from mimsuite.data.unused import notice
from mimsuite.data.views import Views
from mimsuite.noise import keyed_rng
from mimsuite.tokens import farthest_points

_CELLS = 8  # cells per side of the occupancy grid, the raw features of a cloud
_CUT_PERTURB, _CUT_JITTER = 3, 5  # limits of perturbation and jitter, in standard deviations


class PointViews(Views):
    """Views by the recipe's ``augment:``, with the number of points of ``model.encoder``."""

    main = "points"

    def __init__(self, recipe: Recipe, *, testing: bool = False) -> None:
        self.recipe = recipe
        encoder = recipe.model.encoder
        augment: object = recipe.augment
        assert isinstance(augment, PointAugmentSection)
        self.augment = augment
        self.points: int = encoder.points
        self.fewest: int = max(encoder.groups, encoder.group_size)
        self.rule = encoder.sampling
        self.parts = getattr(recipe.target, "kind", None) == "parts"
        self.voting = testing and augment.votes > 1
        if self.voting:
            self.rows = augment.votes

    def train(self, sample: Tensor, rng: np.random.Generator) -> dict[str, Tensor]:
        """(N, 3) -> ``points`` (P, 3): a subset of the points, normalised, then augmented.

        Clouds with fewer than P points repeat some of them.

        Raises:
            CorruptSample: too few points for the model's groups, or all points are equal.
        """
        cloud = self._sound(sample)
        if self.augment.normalize == "before":
            cloud = geometry.normalize(cloud)
        ids = self._subset(cloud, rng)
        cloud = cloud[ids]
        if self.augment.normalize == "after":
            cloud = self._normalized(cloud)
        return self._named(self._moved(cloud, rng), sample, ids)

    def evaluate(self, sample: Tensor) -> dict[str, Tensor]:
        """P points by farthest point sampling, normalised; raises as :meth:`train`.

        With voting: (votes, P, 3) training views, from the same random numbers for every sample.
        """
        if self.voting:
            draws = [keyed_rng("vote", number) for number in range(self.augment.votes)]
            views = [self.train(sample, rng) for rng in draws]
            return {name: torch.stack([view[name] for view in views]) for name in views[0]}
        cloud = self._sound(sample)
        if self.augment.normalize == "before":
            cloud = geometry.normalize(cloud)
        ids = torch.arange(self.points) % len(cloud)
        if len(cloud) > self.points:
            ids = self._farthest(cloud, self.points)
        cloud = cloud[ids]
        if self.augment.normalize == "after":
            cloud = self._normalized(cloud)
        return self._named(cloud, sample, ids)

    def test(self) -> Views:
        return PointViews(self.recipe, testing=True)

    def notice_unused(self, sample: Tensor) -> None:
        if sample.shape[1] > 3 and not self.parts:
            notice("the part that each point is of, which target.kind=parts learns")

    def normalizer(self, device: torch.device | str) -> Callable[[Batch], Batch]:
        return _Moved(device)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"points": (self.points, 3)} | ({"parts": (self.points,)} if self.parts else {})

    def raw(self, batch: Batch) -> Tensor:
        """(B, 512): the share of points in each cell of an 8 x 8 x 8 occupancy grid."""
        points = batch.views["points"]
        cells = ((points + 1) / 2 * _CELLS).long().clamp(0, _CELLS - 1)  # (B, P, 3)
        index = (cells[..., 0] * _CELLS + cells[..., 1]) * _CELLS + cells[..., 2]
        counts = points.new_zeros(len(points), _CELLS**3)
        ones = torch.ones_like(index, dtype=points.dtype)
        return counts.scatter_add_(1, index, ones) / points.shape[1]

    def _sound(self, sample: Tensor) -> Tensor:
        """Check the sample; returns its (N, 3) coordinates."""
        cloud = sample[:, :3]
        if self.parts and sample.shape[1] == 3:
            raise CorruptSample("decode", "a cloud without a column of parts")
        if len(cloud) < self.fewest:
            raise CorruptSample(
                "decode",
                f"{len(cloud)} points; model.encoder.groups and group_size need {self.fewest}",
            )
        if bool((cloud == cloud[0]).all()):
            raise CorruptSample("decode", "all points are equal")
        return cloud

    def _normalized(self, cloud: Tensor) -> Tensor:
        try:
            return geometry.normalize(cloud)
        except ValueError as fault:  # only the sampled points are all equal
            raise CorruptSample("decode", str(fault)) from None

    def _subset(self, cloud: Tensor, rng: np.random.Generator) -> Tensor:
        """(P,) point ids in random order; all of them if the cloud has no more than P."""
        pool = self.points if self.augment.pool is None else max(self.augment.pool, self.points)
        drawn = torch.arange(len(cloud))
        if self.augment.subset == "farthest" and pool < len(cloud):
            drawn = self._farthest(cloud, pool)
        order = rng.permutation(len(drawn))
        if len(drawn) < self.points:
            order = np.concatenate([order, rng.integers(len(drawn), size=self.points - len(drawn))])
        return drawn[torch.from_numpy(order[: self.points])]

    def _farthest(self, cloud: Tensor, count: int) -> Tensor:
        """(count,) ids by farthest point sampling."""
        return farthest_points(cloud[None], count, self.rule)[0]

    def _named(self, cloud: Tensor, sample: Tensor, ids: Tensor) -> dict[str, Tensor]:
        return {"points": cloud} | ({"parts": sample[ids, 3].long()} if self.parts else {})

    def _moved(self, cloud: Tensor, rng: np.random.Generator) -> Tensor:
        """Apply the recipe's augmentations: rotation, scale, shift, jitter, point dropout."""
        augment = self.augment
        turn = rng.uniform(0, 2 * np.pi) if augment.rotate_y else 0.0
        if augment.rotate_y and not augment.rotate_last:
            cloud = geometry.rotate_y(cloud, turn)
        if augment.perturb:
            cloud = geometry.rotate(cloud, _normal(rng, (3,), augment.perturb, _CUT_PERTURB))
        axes = 3 if augment.scale_axes == "each" else 1
        scale = torch.from_numpy(rng.uniform(*augment.scale, size=axes)).float()
        shift = torch.from_numpy(rng.uniform(-augment.translate, augment.translate, size=3))
        cloud = geometry.scale_translate(cloud, scale.expand(3), shift.float())
        if augment.rotate_y and augment.rotate_last:
            cloud = geometry.rotate_y(cloud, turn)
        if augment.jitter:
            cloud = cloud + _normal(rng, cloud.shape, augment.jitter, _CUT_JITTER)
        if augment.dropout:
            share = rng.uniform(0, augment.dropout)
            dropped = torch.from_numpy(rng.random(len(cloud)) <= share)
            cloud = geometry.drop_points(cloud, dropped)
        return cloud


class _Moved:
    """Moves a batch to the device; coordinates are unchanged, each vote becomes a row."""

    def __init__(self, device: torch.device | str) -> None:
        self.device = device

    def __call__(self, batch: Batch) -> Batch:
        batch = batch.to(self.device)
        points = batch.views["points"].float()
        batch = replace(batch, views={**batch.views, "points": points})
        if batch.views["points"].ndim == 3:
            return batch
        votes = batch.views["points"].shape[1]  # (B, V, P, 3) -> (V B, P, 3)
        return replace(
            batch,
            views={name: view.transpose(0, 1).flatten(0, 1) for name, view in batch.views.items()},
            index=batch.index.repeat(votes),
            keys=batch.keys * votes,
            label=None if batch.label is None else batch.label.repeat(votes),
            host_index=None if batch.host_index is None else batch.host_index.repeat(votes),
        )


def _normal(rng: np.random.Generator, shape: tuple[int, ...], deviation: float, cut: int) -> Tensor:
    drawn = rng.normal(0.0, deviation, shape).clip(-cut * deviation, cut * deviation)
    return torch.from_numpy(drawn).float()
