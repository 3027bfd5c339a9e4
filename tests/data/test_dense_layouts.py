"""Layouts of dense truth: what is found, what counts for nothing, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mimsuite import config
from mimsuite.data import eval_loader
from mimsuite.data.dense import LAYOUTS, DenseViews, layout_of, open_dense
from mimsuite.errors import CorruptSample, DataError, UserError
from tests.data import dense_folders as folders

MAKE = {name: getattr(folders, name) for name in LAYOUTS}


def recipe(layout: str, root: Path, **keys: Any) -> Any:
    given = {
        "data.source": str(root),
        "model.encoder.image_size": 16,
        "model.encoder.patch_size": 8,
        "target.resolution": 8,
        **keys,
    }
    return config.with_overrides(config.load(f"image/dense-{layout}", smoke=True), given).recipe


@pytest.fixture(params=sorted(MAKE))
def layout(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    MAKE[request.param](tmp_path / "set")
    return request.param


def test_every_layout_is_told_from_the_others_and_read(layout: str, tmp_path: Path) -> None:
    root = tmp_path / "set"
    assert layout_of(root) == layout
    section = recipe(layout, root)
    train = open_dense(section, "train")
    test = open_dense(section, section.eval.split)
    assert (len(train), len(test)) == ((12, 6) if layout == "scenes" else (6, 3))
    assert train.listing.synthetic == (layout == "scenes")
    (batch,) = eval_loader(train, DenseViews(section), 16)
    assert batch.views["image"].shape == (len(train), 3, 16, 16)
    segments, depth = batch.views.get("segments"), batch.views.get("depth")
    assert (segments is None) == (layout == "nyuv2")
    assert (depth is None) == (layout in ("ade20k", "voc"))
    for view in (segments, depth):
        assert view is None or view.shape == (len(train), 8, 8)
    if depth is not None:
        assert set(depth.unique().tolist()) <= {0.0, 1.0, 2.0, 4.0}


def test_values_without_a_class_count_for_nothing(tmp_path: Path) -> None:
    ade = open_dense(recipe("ade20k", folders.ade20k(tmp_path / "a")), "val")
    assert len(ade.listing.classes) == 150
    segments, _ = ade.truth(0)
    stored = np.asarray(Image.open(tmp_path / "a" / ade.listing.masks[0]))
    assert segments is not None
    assert np.array_equal(segments.numpy(), np.where(stored == 0, 255, stored - 1))
    voc = open_dense(recipe("voc", folders.voc(tmp_path / "v")), "val")
    segments, _ = voc.truth(0)
    assert segments is not None
    assert bool((segments[:2] == 255).all())
    assert set(segments[2:].unique().tolist()) <= {0, 1, 2}  # background is a class
    assert voc.classes[0] == "background"


def test_truth_is_scaled_by_the_nearest_pixel_and_images_as_a_whole(tmp_path: Path) -> None:
    section = recipe("scenes", folders.scenes(tmp_path / "s"), **{"target.resolution": 32})
    source = open_dense(section, "train")
    views = DenseViews(section).evaluate(source.decode(source.read(0, 0)))
    segments, depth = source.truth(0)
    assert torch.equal(views["segments"], segments)
    assert torch.equal(views["depth"], depth)
    coarse = DenseViews(recipe("scenes", tmp_path / "s", **{"target.resolution": [4, 8]}))
    found = coarse.evaluate(source.decode(source.read(0, 0)))
    assert found["segments"].shape == (4, 8)
    assert torch.equal(found["segments"], segments[4::8, 2::4])


def test_images_without_their_mask_are_refused(tmp_path: Path) -> None:
    root = folders.scenes(tmp_path / "s")
    (root / "masks/train/003.png").unlink()
    with pytest.raises(DataError, match=r"1 of 12 images lack .* masks/train/003.png"):
        open_dense(recipe("scenes", root), "train")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("masks", b"not a png", "no PNG"),
        ("masks", np.full((32, 32), 7, np.uint8), "value 7 in a mask of 3 classes"),
        ("masks", np.zeros((32, 32, 3), np.uint8), "mode RGB"),
        ("masks", np.zeros((16, 32), np.uint8), "16 x 32 pixels for an image of 32 x 32"),
        ("depth", np.zeros((32, 32), np.uint8), "PNG of 16 bits"),
    ],
)
def test_damaged_truth_is_a_corrupt_sample(
    tmp_path: Path, name: str, content: Any, message: str
) -> None:
    root = folders.scenes(tmp_path / "s")
    path = root / name / "train" / "004.png"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        Image.fromarray(content).save(path)
    section = recipe("scenes", root)
    source = open_dense(section, "train")
    with pytest.raises(CorruptSample, match=message):
        source.decode(source.read(4, 0))
    loader = eval_loader(source, DenseViews(section), 16)
    (batch,) = loader
    assert batch.index.tolist() == [0, 1, 2, 3, *range(5, 12)]
    assert [damage.key for damage in loader.damaged] == ["images/train/004.png"]


def test_wrong_folders_and_splits_are_refused(tmp_path: Path) -> None:
    root = folders.scenes(tmp_path / "s")
    with pytest.raises(UserError, match="no such folder"):
        layout_of(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="SegmentationClass"):
        layout_of(tmp_path / "empty")
    with pytest.raises(UserError, match=r"data.layout=voc.*JPEGImages"):
        open_dense(recipe("voc", root), "train")
    with pytest.raises(UserError, match="no split 'val'; it has: test, train"):
        open_dense(recipe("scenes", root), "val")
    nyu = recipe("nyuv2", folders.nyuv2(tmp_path / "n"), **{"target.segments": {}})
    with pytest.raises(UserError, match=r"target.segments.*no such truth"):
        open_dense(nyu, "train")
    (root / "scenes.json").write_text('{"format": "another"}')
    with pytest.raises(DataError, match="not what"):
        open_dense(recipe("scenes", root), "train")
