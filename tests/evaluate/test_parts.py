"""Part segmentation: metrics by hand, and training on made-up objects with parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mimsuite import config
from mimsuite.data import open_source, open_split
from mimsuite.data.synthetic import parted
from mimsuite.data.synthetic.synth import synthesise
from mimsuite.errors import CorruptSample, UserError
from mimsuite.evaluate.scoring.part_segmentation import miou, own_parts, segment, shape_ious
from mimsuite.noise import keyed_rng
from mimsuite.train.run import train

COUNTS = (2, 3)


def test_only_parts_of_the_own_class_compete() -> None:
    scores = torch.tensor([[[9.0, 1, 2, 8, 3]], [[9.0, 1, 2, 8, 3]]])
    assert own_parts(scores, torch.tensor([0, 1]), COUNTS).tolist() == [[0], [3]]


def test_unions_by_hand() -> None:
    found = torch.tensor([[0, 0, 1, 1], [2, 2, 3, 3]])
    parts = torch.tensor([[0, 1, 1, 1], [2, 2, 3, 3]])
    ious = shape_ious(found, parts, torch.tensor([0, 1]), COUNTS)
    torch.testing.assert_close(ious, torch.tensor([(1 / 2 + 2 / 3) / 2, 1.0]))  # part 4: absent


def test_both_means() -> None:
    figures = miou(torch.tensor([0.2, 0.4, 0.9]), torch.tensor([0, 0, 2]), ["a", "b", "c"])
    assert figures["instance_miou"] == pytest.approx(0.5)
    assert figures["class_miou"] == pytest.approx((0.3 + 0.9) / 2)
    assert figures["per_class"].keys() == {"a", "c"}


def test_made_up_objects_have_all_their_parts() -> None:
    first = 0
    for name, count in parted.PARTS.items():
        made = parted.make(name, "train", 400, keyed_rng(name))
        table = np.load(__import__("io").BytesIO(made), allow_pickle=False)
        assert table.shape == (400, 4)
        assert set(table[:, 3].astype(int)) == set(range(first, first + count))
        assert np.linalg.norm(table[:, :3], axis=1).max() == pytest.approx(1.0, abs=1e-5)
        first += count


@pytest.fixture
def shapes(tmp_path: Path) -> str:
    synthesise("points", tmp_path / "parts", count=45, size=256, parts=True)
    return str(tmp_path / "parts")


def recipe(shapes: str, *keys: str) -> config.Resolved:
    small = ["model.encoder.points=128", "model.encoder.groups=16", "model.encoder.width=32"]
    given = [*small, f"data.source={shapes}", "schedule.epochs=20", "train.global_batch=6", *keys]
    return config.load("points/segment-tiny-parts", given)


def test_training_learns_parts(shapes: str, tmp_path: Path) -> None:
    resolved = recipe(shapes)
    done = train(resolved, tmp_path / "run", quiet=True)
    figures = segment(done.method, open_split(resolved.recipe, "test"), resolved)
    assert figures["n_test"] == 9
    assert figures["per_class"].keys() == {"chair", "mug", "table"}
    assert figures["instance_miou"] > 0.5  # a constant guess: about a quarter


def test_clouds_without_parts_are_refused(shapes: str, tmp_path: Path) -> None:
    synthesise("points", tmp_path / "plain", count=16, size=256)
    source: Any = open_source(str(tmp_path / "plain"), modality="points")
    from mimsuite.data import views_of

    views = views_of(recipe(shapes).recipe)
    with pytest.raises(CorruptSample, match="without a column of parts"):
        views.evaluate(source.decode(source.read(0, 0)))
    with pytest.raises(UserError, match="--parts is for points and grids"):
        synthesise("image", tmp_path / "image", count=2, parts=True)
