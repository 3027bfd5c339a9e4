"""Detection of oriented boxes in radiance grids (NeRF-MAE, Irshad et al., arXiv:2404.01300, section
4; the detector is the anchor-free NeRF-RPN, Hu et al., arXiv:2211.11646).

The four stages of the pretrained encoder feed a feature pyramid. Every pyramid point predicts
whether it is near the centre of a box, and the extent of that box.

Letters: B batch, N points of all levels, M boxes per scene at most, P predicted boxes.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.config.keys.shared import MethodCard, MethodSection
from mimsuite.config.keys.volume_tasks import BoxTargetSection, DetectorSection, GridRecipe
from mimsuite.errors import DataError
from mimsuite.masking import TokenMask
from mimsuite.methods.base import Context, Method, Output
from mimsuite.models.swin3d import Swin3D
from mimsuite.models.volume_pyramid import BoxHead, PointPredictions, VolumePyramid
from mimsuite.noise import Noise
from mimsuite.targets.picking import pick
from mimsuite.targets.point_boxes import assign, box_loss, boxes_of, level_points


class VolumeDetectSection(MethodSection):
    """`method:` detection has no keys of its own."""

    name: Literal["volume-detect"]


class VolumeDetectRecipe(GridRecipe):
    """A recipe for box detection."""

    card: ClassVar[MethodCard] = MethodCard("arXiv:2404.01300", "experimental")

    method: VolumeDetectSection
    model: DetectorSection
    target: BoxTargetSection


class VolumeDetector(Method):
    """An encoder of volumes with a feature pyramid and a box head."""

    Recipe = VolumeDetectRecipe
    encoder: Swin3D

    def __init__(self, recipe: VolumeDetectRecipe) -> None:
        super().__init__(recipe)
        section, head = recipe.model.encoder, recipe.model.head
        self.target, self.proposals = recipe.target, recipe.model.proposals
        self.strides = [section.patch_size << stage for stage in range(4)]
        self.grids = [[section.side >> stage] * 3 for stage in range(4)]
        self.encoder = Swin3D(section)
        self.pyramid = VolumePyramid(section.width, head.width)
        self.head = BoxHead(head, oriented=recipe.target.oriented)

    def check(self, batch: Batch) -> None:
        """Raise a ``DataError`` for a batch without boxes."""
        self._boxes(batch)

    def forward(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> Output:
        """Sum of score, overlap and centre losses; ``prediction`` is box codes (B, N, 6 or 8)."""
        levels = self._predict(batch.views["grid"], ctx.noise)
        points = self._points(batch.views["grid"].device)
        boxes, size = self._boxes(batch).float(), batch.views["size"]
        score, centre, code = (
            torch.cat([getattr(level, name) for level in levels], dim=1)
            for name in ("score", "centre", "code")
        )
        with torch.no_grad():
            assigned = assign(points, self.strides, boxes, size, self.target)
        loss = box_loss(score, centre, code, torch.cat(points), boxes, assigned, self.target)
        terms = {"score": loss.score, "box": loss.box, "centre": loss.centre}
        terms = {name: term.detach() for name, term in terms.items()}
        return Output(loss.total, terms, code, masks, weight=loss.count)

    def detect(self, batch: Batch) -> list[tuple[Tensor, Tensor]]:
        """Boxes (P, 7) in voxels and scores (P,) of each scene, best first, float32.

        A point's score is sqrt(probability of a box * centreness).
        """
        levels = self._predict(batch.views["grid"])
        points = self._points(batch.views["grid"].device)
        found = []
        for row, size in enumerate(batch.views["size"]):
            parts = [
                self._best(level, row, at, size) for level, at in zip(levels, points, strict=True)
            ]
            boxes, scores = (torch.cat(columns) for columns in zip(*parts, strict=True))
            kept = pick(boxes, scores, self.proposals.overlap, self.proposals.most)
            found.append((boxes[kept], scores[kept]))
        return found

    def _best(
        self, level: PointPredictions, row: int, points: Tensor, size: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Best boxes of one level and scene, from points inside the scene; empty boxes are left
        out."""
        scores = (level.score[row].sigmoid() * level.centre[row].sigmoid()).sqrt()
        boxes = boxes_of(points, level.code[row])
        sound = (points < size).all(1) & (boxes[:, 3:6] > 0).all(1)
        boxes, scores = boxes[sound], scores[sound]
        scores, at = scores.topk(min(self.proposals.per_level, len(scores)))
        return boxes[at], scores

    def _predict(self, grids: Tensor, noise: Noise | None = None) -> list[PointPredictions]:
        features = self.encoder(grids, noise=noise)
        predictions: list[PointPredictions] = self.head(self.pyramid(features), self.strides)
        return predictions

    def _points(self, device: torch.device) -> list[Tensor]:
        levels = zip(self.grids, self.strides, strict=True)
        return [level_points(grid, stride, device) for grid, stride in levels]

    def _boxes(self, batch: Batch) -> Tensor:
        if "boxes" not in batch.views:
            raise DataError("detection needs an array 'boxes' (G, 7) in each scene's file")
        return batch.views["boxes"]
