"""Box detection: which points tell which box, the losses, and predictions that are right."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from mimsuite.batch import Batch
from mimsuite.config.keys.volume_tasks import BoxTargetSection
from mimsuite.errors import DataError
from mimsuite.methods import build
from mimsuite.methods.volume_detect import VolumeDetector, VolumeDetectRecipe
from mimsuite.models.volume_pyramid import PointPredictions
from mimsuite.noise import Noise
from mimsuite.targets.box_code import encode_boxes
from mimsuite.targets.boxes import iou, iou_matrix
from mimsuite.targets.picking import pick
from mimsuite.targets.point_boxes import assign, box_loss, boxes_of, focal_loss, level_points
from mimsuite.train.step import run_method

STRIDES = [4, 8, 16, 32]
BOXES = torch.tensor(
    [
        [[8.0, 9, 5, 6, 10, 8, 0.3], [22, 21, 8, 12, 9, 15, -0.6]],
        [[16, 16, 6, 20, 8, 10, 1.2], [0] * 7],
    ]
)
SIZES = torch.tensor([[32, 32, 20], [30, 32, 16]])


def recipe(**changes: Any) -> VolumeDetectRecipe:
    encoder = {"resolution": 32, "width": 6, "depths": [1, 2, 1, 1], "heads": [1, 2, 2, 3]}
    document: dict[str, Any] = {
        "recipe": {"modality": "grids"},
        "method": {"name": "volume-detect"},
        "model": {
            "encoder": encoder | {"window": 2, "drop_path": 0.0},
            "head": {"width": 16, "depth": 1, "groups": 4},
        },
        "target": {"most": 2, "reach": [10, 20, 40], **changes},
        "optim": {"lr": 1e-3},
        "schedule": {"epochs": 1},
        "train": {"global_batch": 2},
    }
    return VolumeDetectRecipe.model_validate(document)


def made(**changes: Any) -> VolumeDetector:
    torch.manual_seed(1)
    method = build(recipe(**changes))
    assert isinstance(method, VolumeDetector)
    return method


def scenes() -> Batch:
    torch.manual_seed(0)
    return Batch.of_views({"grid": torch.rand(2, 4, 32, 32, 32), "size": SIZES, "boxes": BOXES})


def points_of() -> list[torch.Tensor]:
    return [level_points([32 // stride] * 3, stride) for stride in STRIDES]


def test_points_stand_in_the_middle_of_their_cells() -> None:
    points = level_points((2, 1, 3), 4)
    assert points[:, 0].tolist() == [2, 2, 2, 6, 6, 6]
    assert points[:, 2].tolist() == [2, 6, 10] * 2


def test_points_tell_the_smallest_box_whose_middle_is_near() -> None:
    """Against a plain loop over points and boxes."""
    section, points = BoxTargetSection(most=2, reach=(10, 20, 40)), points_of()
    found = assign(points, STRIDES, BOXES, SIZES, section)
    bounds, start = [-1, 10, 20, 40, math.inf], 0
    for level, places in enumerate(points):
        for number, place in enumerate(places):
            for scene in range(2):
                fits = []
                for box in range(2):
                    x, y, z, w, length, h, yaw = BOXES[scene, box].tolist()
                    half = [
                        (w * abs(math.cos(yaw)) + length * abs(math.sin(yaw))) / 2,
                        (w * abs(math.sin(yaw)) + length * abs(math.cos(yaw))) / 2,
                        h / 2,
                    ]
                    apart = [abs(float(p) - c) for p, c in zip(place, (x, y, z), strict=True)]
                    far = max(a + s for a, s in zip(apart, half, strict=True))
                    reach = 1.5 * STRIDES[level]
                    near = all(a < min(s, reach) for a, s in zip(apart, half, strict=True))
                    if near and bounds[level] <= far <= bounds[level + 1]:
                        fits.append((half[0] * half[1] * half[2], box))
                inside = bool((place < SIZES[scene]).all())
                row = start + number
                assert bool(found.known[scene, row]) == inside
                assert bool(found.tells[scene, row]) == bool(fits and inside)
                if fits and inside:
                    assert int(found.box[scene, row]) == min(fits)[1]
                    assert 0 < float(found.centre[scene, row]) <= 1
        start += len(places)
    assert int(found.tells.sum()) > 4


def test_focal_loss_by_hand() -> None:
    loss = focal_loss(torch.tensor([0.0, math.log(3)]), torch.tensor([1.0, 0.0]), 0.25, 2.0)
    expected = [0.25 * 0.25 * math.log(2), 0.75 * 0.75**2 * math.log(4)]
    torch.testing.assert_close(loss, torch.tensor(expected))


@pytest.mark.parametrize("oriented", [True, False])
def test_gradients_are_those_of_finite_differences(oriented: bool) -> None:
    section = BoxTargetSection(most=2, reach=(10, 20, 40), oriented=oriented)
    points, boxes = points_of(), BOXES.double()
    assigned = assign(points, STRIDES, BOXES, SIZES, section)
    every = torch.cat(points).double()
    generator = torch.Generator().manual_seed(3)
    noise = torch.rand(2, len(every), 10, generator=generator, dtype=torch.float64)
    code = (2 + 6 * noise[..., :6]).requires_grad_()
    offsets = noise[..., 6:8] - 0.5
    logits = noise[..., 8:]

    def loss() -> torch.Tensor:
        told = torch.cat([code, offsets], dim=-1) if oriented else code
        return box_loss(
            logits[..., 0], logits[..., 1], told, every, boxes, assigned, section
        ).box.double()

    (gradient,) = torch.autograd.grad(loss(), code)
    assert bool(gradient.isfinite().all())
    assert bool((gradient != 0).any(-1).eq(assigned.tells).all())
    rows = assigned.tells.nonzero()[:3]
    for scene, row in rows.tolist():
        step = 1e-2  # the loss itself is float32
        for column in range(6):
            with torch.no_grad():
                code[scene, row, column] += step
                up = float(loss())
                code[scene, row, column] -= 2 * step
                down = float(loss())
                code[scene, row, column] += step
            slope = float(gradient[scene, row, column])
            assert (up - down) / (2 * step) == pytest.approx(slope, abs=2e-4, rel=0.05)


def test_scenes_without_boxes_give_a_sound_loss() -> None:
    method = made().train()
    batch = scenes()
    empty = Batch.of_views({**batch.views, "boxes": torch.zeros(2, 2, 7)})
    output = run_method(method, empty, Noise(0, 0, batch.index))
    output.loss.backward()
    assert float(output.terms["box"]) == 0.0
    assert float(output.terms["centre"]) == 0.0
    assert bool(output.loss.isfinite())
    gradients = [p.grad for p in method.parameters() if p.grad is not None]
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)


@pytest.mark.parametrize("oriented", [True, False])
def test_every_trained_parameter_learns(oriented: bool) -> None:
    method = made(oriented=oriented).train()
    batch = scenes()
    output = run_method(method, batch, Noise(0, 0, batch.index))
    output.loss.backward()
    assert output.prediction is not None
    assert output.prediction.shape == (2, 8**3 + 4**3 + 2**3 + 1, 8 if oriented else 6)
    idle = [name for name, p in method.named_parameters() if p.requires_grad and p.grad is None]
    assert idle == []


def test_exact_codes_become_the_boxes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Points that say what is true are all that is left, one for each box."""
    method, batch = made().eval(), scenes()
    points = points_of()
    assigned = assign(points, STRIDES, BOXES, SIZES, method.target)
    every = torch.cat(points)
    code = torch.stack(
        [
            encode_boxes(every, boxes[which])
            for boxes, which in zip(BOXES, assigned.box, strict=True)
        ]
    )
    counts = [len(places) for places in points]
    parts = [
        (torch.where(assigned.tells, 9.0, -9.0), assigned.centre.logit(1e-3), code)[i].split(
            counts, 1
        )
        for i in range(3)
    ]
    exact = [PointPredictions(*level) for level in zip(*parts, strict=True)]
    monkeypatch.setattr(method, "_predict", lambda grids: exact)
    for (boxes, scores), truth in zip(method.detect(batch), BOXES, strict=True):
        truth = truth[truth[:, 3] > 0]
        good = boxes[scores > 0.1]
        assert len(good) == len(truth)
        assert bool((iou_matrix(good, truth).amax(0) > 0.999).all())


def test_picking_equals_the_plain_rule() -> None:
    generator = torch.Generator().manual_seed(0)
    boxes = torch.rand(60, 7, generator=generator) * torch.tensor([9, 9, 4, 5, 5, 5, 3.0])
    boxes[:, 3:6] += 1
    scores = torch.rand(60, generator=generator)
    kept: list[int] = []
    for row in scores.argsort(descending=True).tolist():
        if all(float(iou(boxes[row], boxes[other])) <= 0.3 for other in kept):
            kept.append(row)
    assert pick(boxes, scores, 0.3, 100).tolist() == kept
    assert pick(boxes, scores, 0.3, 3).tolist() == kept[:3]
    assert pick(boxes[:0], scores[:0], 0.3, 3).tolist() == []


def test_upright_codes() -> None:
    points, code = torch.tensor([[5.0, 6, 7]]), torch.tensor([[1.0, 2, 3, 3, 2, 1]])
    assert boxes_of(points, code).tolist() == [[6.0, 6.0, 6.0, 4.0, 4.0, 4.0, 0.0]]


def test_batches_without_boxes_are_refused() -> None:
    batch = scenes()
    views = {name: view for name, view in batch.views.items() if name != "boxes"}
    with pytest.raises(DataError, match="needs an array 'boxes'"):
        made().check(Batch.of_views(views))


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"reach \[20, 10, 40\] must grow"):
        recipe(reach=[20, 10, 40])
    document = recipe().model_dump()
    document["model"]["head"] |= {"groups": 3}
    with pytest.raises(ValidationError, match="groups 3 do not divide width 16"):
        VolumeDetectRecipe.model_validate(document)
    document = recipe().model_dump()
    document["recipe"]["modality"] = "image"
    with pytest.raises(ValidationError, match="takes radiance grids"):
        VolumeDetectRecipe.model_validate(document)
