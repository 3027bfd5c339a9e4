"""What scenes say beside colour and density, moved and padded together with them."""

from __future__ import annotations

import io
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mimsuite.config.keys.volume import GridAugmentSection
from mimsuite.config.keys.volume_tasks import (
    BoxTargetSection,
    FinerTargetSection,
    VoxelTargetSection,
)
from mimsuite.data.synthetic import furniture
from mimsuite.data.volume.decode import GridDecoder, RadianceGrid
from mimsuite.data.volume.views import GridViews
from mimsuite.errors import CorruptSample, UserError
from mimsuite.noise import keyed_rng


def npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def views(target: Any, side: int = 32, **augment: Any) -> GridViews:
    model = SimpleNamespace(encoder=SimpleNamespace(resolution=side))
    section = GridAugmentSection(**augment)
    recipe: Any = SimpleNamespace(augment=section, model=model, target=target)
    return GridViews(recipe)


def room(number: int = 0, size: int = 28) -> RadianceGrid:
    return GridDecoder()(furniture.make("beds", "train", size, keyed_rng("room", number)))


def inside_share(labels: torch.Tensor, box: torch.Tensor) -> float:
    """Of the voxels of furniture around a box's centre, the share that lies in the box."""
    voxels = (labels > 1).nonzero() + 0.5
    offset = voxels - box[:3]
    cos, sin = math.cos(float(box[6])), math.sin(float(box[6]))
    turn = torch.tensor([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1.0]])
    local = (offset.float() @ turn).abs()
    return float((local <= box[3:6] / 2 + 1.0).all(1).sum()) / len(voxels)


@pytest.mark.parametrize(
    "augment", [{"rotate": 1.0, "flip": 0.0}, {"flip": 1.0, "rotate": 0.0}, {"turn_scale": 1.0}]
)
def test_boxes_and_labels_move_with_the_grid(augment: dict[str, Any]) -> None:
    """After any move the voxels of the furniture are in the boxes, and are where the matter is."""
    augment = {"rotate": 0.0, "flip": 0.0} | augment
    for number in range(4):
        scene = room(number)
        labels = views(VoxelTargetSection(labels=6), **augment).train(scene, keyed_rng(number))
        boxes = views(BoxTargetSection(most=8), **augment).train(scene, keyed_rng(number))
        assert torch.equal(labels["grid"], boxes["grid"])
        dense, named = labels["grid"][3] > 0.5, labels["labels"] > 0
        assert float((dense == named).float().mean()) > 0.98
        kept = boxes["boxes"][boxes["boxes"][:, 3] > 0]
        assert len(kept)
        shares = [inside_share(labels["labels"], box) for box in kept]
        assert sum(shares) > 0.97


def test_boxes_are_padded_with_rows_of_zeros() -> None:
    scene = next(one for one in map(room, range(9)) if one.boxes is not None and len(one.boxes) > 1)
    assert scene.boxes is not None
    rows = views(BoxTargetSection(most=8)).evaluate(scene)["boxes"]
    count = len(scene.boxes)
    assert torch.equal(rows[:count], scene.boxes)
    assert not rows[count:].any()
    flat = views(BoxTargetSection(most=8, oriented=False)).evaluate(scene)["boxes"][:count]
    assert not flat[:, 6].any()
    assert bool((flat[:, 5] == scene.boxes[:, 5]).all())
    assert bool((flat[:, 3:5].amax(1) >= scene.boxes[:, 3:5].amax(1) * 0.7).all())
    with pytest.raises(UserError, match=r"boxes: target\.most is 1"):
        views(BoxTargetSection(most=1)).evaluate(scene)


def test_what_is_seen_is_sampled_from_what_is_stored() -> None:
    values = torch.linspace(0, 1, 40)[:, None, None, None].expand(40, 20, 10, 4).numpy()
    scene = GridDecoder()(npz(rgbsigma=values, density_kind="alpha"))
    view = views(FinerTargetSection(resolution=40), side=20).evaluate(scene)
    assert view["size"].tolist() == [20, 10, 5]
    assert view["fine_size"].tolist() == [40, 20, 10]
    torch.testing.assert_close(view["grid"][0, :, 0, 0], torch.linspace(0, 1, 20))
    with pytest.raises(UserError, match=r"larger than target\.resolution 32"):
        views(FinerTargetSection(resolution=32), side=16).evaluate(scene)


def test_scenes_that_do_not_say_are_refused() -> None:
    plain = GridDecoder()(npz(rgbsigma=np.zeros((4, 4, 4, 4), np.float32), density_kind="alpha"))
    with pytest.raises(CorruptSample, match="without boxes"):
        views(BoxTargetSection()).evaluate(plain)
    with pytest.raises(CorruptSample, match="without labels"):
        views(VoxelTargetSection(labels=3)).evaluate(plain)


@pytest.mark.parametrize(
    ("arrays", "fault"),
    [
        ({"boxes": np.zeros((2, 5), np.float32)}, r"known are \(G, 6\) and \(G, 7\)"),
        ({"boxes": np.zeros((2, 7), np.float32)}, "a side of 0 or less"),
        ({"boxes": np.full((1, 7), np.nan, np.float32)}, "not finite"),
        ({"labels": np.zeros((4, 4, 3), np.uint8)}, r"labels of shape \(4, 4, 3\)"),
        ({"labels": np.full((4, 4, 4), -1, np.int32)}, "labels outside of 0 to 255"),
    ],
)
def test_bad_truth_is_named(arrays: dict[str, Any], fault: str) -> None:
    grid = np.zeros((4, 4, 4, 4), np.float32)
    with pytest.raises(CorruptSample, match=fault):
        GridDecoder()(npz(rgbsigma=grid, **arrays))


def test_corners_become_boxes() -> None:
    corners = np.array([[1, 2, 3, 3, 6, 9]], np.float32)
    scene = GridDecoder()(npz(rgbsigma=np.zeros((4, 4, 4, 4), np.float32), boxes=corners))
    assert scene.boxes is not None
    assert scene.boxes.tolist() == [[2, 4, 6, 2, 4, 6, 0]]
