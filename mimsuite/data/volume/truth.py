"""Training targets of labelled radiance grids, as views beside ``grid``.

* ``boxes`` (M, 7): centre, sides and yaw in voxels; zero rows pad scenes with fewer boxes.
* ``labels`` (R, R, R) uint8: a class for every voxel, 0 = unlabelled or padding.
* ``fine`` (4, S, S, S): the scene at stored resolution, and ``fine_size`` (3,); ``grid`` is then
  downsampled from it.

Letters: R and S voxels per side of the views, (X, Y, Z) scene size, M largest number of boxes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mimsuite.data.damage import CorruptSample
from mimsuite.data.volume import geometry
from mimsuite.errors import UserError
from mimsuite.targets.boxes import outer_boxes

_FEWEST = 2  # smallest side in voxels that can be resampled


@dataclass(frozen=True)
class Scene:
    """Colour and opacity (4, X, Y, Z) with its labels, transformed together."""

    grid: Tensor
    boxes: Tensor | None = None  # (G, 7)
    labels: Tensor | None = None  # (X, Y, Z) uint8

    def quarter_turn(self) -> Scene:
        grid, boxes = geometry.quarter_turn(self.grid, self.boxes)
        labels = None
        if self.labels is not None:
            labels = geometry.quarter_turn(self.labels[None])[0][0]
        return Scene(grid, boxes, labels)

    def mirror(self, axis: int) -> Scene:
        grid, boxes = geometry.mirror(self.grid, axis, self.boxes)
        labels = None if self.labels is None else self.labels.flip(axis)
        return Scene(grid, boxes, labels)

    def turn_and_scale(self, angle: float, scale: float) -> Scene:
        """Rotate and scale; boxes whose centre leaves the grid are dropped."""
        grid, boxes = geometry.turn_and_scale(self.grid, angle, scale, self.boxes)
        if boxes is not None:
            sides = torch.tensor(grid.shape[1:])
            inside = ((boxes[:, :3] >= 0) & (boxes[:, :3] < sides)).all(1)
            boxes = boxes[inside]
        labels = None
        if self.labels is not None:
            as_grid = self.labels[None].float()
            moved, _ = geometry.turn_and_scale(as_grid, angle, scale, mode="nearest")
            labels = moved[0].round().to(torch.uint8)
        return Scene(grid, boxes, labels)


class GridTruth:
    """No labels: the grid itself is the target; base class of the others."""

    def __init__(self, target: Any, side: int) -> None:
        self.target, self.side = target, side

    def chosen(self, scene: Scene) -> Scene:
        """The scene with only the labels to be learnt; raises ``CorruptSample`` if it has none."""
        return Scene(scene.grid)

    def seen(self, scene: Scene) -> Tensor:
        """The model's input (4, X, Y, Z), before padding."""
        return scene.grid

    def views(self, scene: Scene) -> dict[str, Tensor]:
        return {}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {}


class BoxTruth(GridTruth):
    """``boxes``."""

    def chosen(self, scene: Scene) -> Scene:
        if scene.boxes is None:
            raise CorruptSample("decode", "a scene without boxes: detection needs them")
        if len(scene.boxes) > self.target.most:
            raise UserError(
                f"a scene with {len(scene.boxes)} boxes: target.most is {self.target.most}"
            )
        return replace(scene, labels=None)

    def views(self, scene: Scene) -> dict[str, Tensor]:
        assert scene.boxes is not None
        boxes = scene.boxes if self.target.oriented else outer_boxes(scene.boxes)
        rows = torch.zeros(self.target.most, 7)
        rows[: len(boxes)] = boxes
        return {"boxes": rows}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"boxes": (self.target.most, 7)}


class LabelTruth(GridTruth):
    """``labels``."""

    def chosen(self, scene: Scene) -> Scene:
        if scene.labels is None:
            raise CorruptSample("decode", "a scene without labels of its voxels")
        return replace(scene, boxes=None)

    def views(self, scene: Scene) -> dict[str, Tensor]:
        assert scene.labels is not None
        return {"labels": padded(scene.labels[None], self.side)[0]}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {"labels": (self.side, self.side, self.side)}


class FineTruth(GridTruth):
    """``fine``; the model's input is downsampled from it, both ends included as in an export."""

    def chosen(self, scene: Scene) -> Scene:
        sides = tuple(scene.grid.shape[1:])
        if min(sides) < _FEWEST:
            raise CorruptSample("decode", f"a side of one voxel: {sides}")
        require_room(sides, self.target.resolution, "target.resolution")
        return Scene(scene.grid)

    def seen(self, scene: Scene) -> Tensor:
        fine = scene.grid
        fit = self.side / self.target.resolution
        sides = [max(_FEWEST, round(side * fit)) for side in fine.shape[1:]]
        coarse = F.interpolate(fine[None], size=sides, mode="trilinear", align_corners=True)
        return coarse[0]

    def views(self, scene: Scene) -> dict[str, Tensor]:
        side = self.target.resolution
        size = torch.tensor(scene.grid.shape[1:])
        return {"fine": padded(scene.grid, side), "fine_size": size}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        side = self.target.resolution
        return {"fine": (4, side, side, side), "fine_size": (3,)}


_KINDS = {"boxes": BoxTruth, "voxel-labels": LabelTruth, "super-resolution": FineTruth}


def truth_of(target: Any, side: int) -> GridTruth:
    """The targets for the recipe's ``target.kind``."""
    return _KINDS.get(getattr(target, "kind", ""), GridTruth)(target, side)


def padded(grid: Tensor, side: int) -> Tensor:
    """(C, X, Y, Z) -> (C, R, R, R), zero-padded at the far ends."""
    channels, x, y, z = grid.shape
    require_room((x, y, z), side)
    whole = torch.zeros(channels, side, side, side, dtype=grid.dtype)
    whole[:, :x, :y, :z] = grid
    return whole


def require_room(sides: tuple[int, ...], most: int, key: str = "model.encoder.resolution") -> None:
    """Raise a ``UserError`` for a scene larger than ``most``, the value of ``key``."""
    if max(sides) > most:
        raise UserError(
            f"a scene of {' x '.join(map(str, sides))} voxels is larger than {key} {most}: raise "
            f"it, or make smaller grids (`data nerf-grid --max-res {most}`, `data synth grids "
            f"--size {most}`)"
        )
