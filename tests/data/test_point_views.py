"""Point clouds from stored bytes to views: what is drawn, and what is refused."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch

from mimsuite.config import from_document
from mimsuite.data import eval_loader, open_source, views_of
from mimsuite.data.points.decode import PointDecoder
from mimsuite.data.points.views import PointViews
from mimsuite.errors import CorruptSample, DataError, UserError
from mimsuite.noise import keyed_rng


def views(**augment: Any) -> PointViews:
    document = {
        "recipe": {"modality": "points"},
        "method": {"name": "point-mae"},
        "model": {
            "encoder": {"points": 64, "groups": 8, "group_size": 6, "width": 12, "heads": 2},
            "decoder": {"heads": 2},
        },
        "mask": {"kind": "random", "ratio": 0.6},
        "target": {},
        "augment": augment,
        "optim": {"lr": 1e-3},
        "schedule": {"epochs": 1},
        "train": {"global_batch": 4},
    }
    made = views_of(from_document(document).recipe)
    assert isinstance(made, PointViews)
    return made


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


CLOUD = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
STILL = {"scale": [1.0, 1.0], "translate": 0.0}


# --- decoding -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f4", "<f8"])
@pytest.mark.parametrize("columns", [3, 6])
def test_coordinates_are_read_whatever_else_there_is(dtype: str, columns: int) -> None:
    stored = np.random.default_rng(0).normal(size=(50, columns)).astype(dtype)
    points = PointDecoder()(npy(stored))
    assert points.dtype is torch.float32
    np.testing.assert_array_equal(points.numpy(), stored[:, :3].astype(np.float32))


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (npy(np.full((9, 3), np.nan, np.float32)), "not finite"),
        (npy(np.array([{}, {}], dtype=object)), "object"),
        (npy(np.zeros((9, 4, 3), np.float32)), "a cloud is"),
        (npy(np.zeros((9, 5), np.float32)), "a cloud is"),
        (npy(np.zeros((0, 3), np.float32)), "a cloud is"),
        (npy(np.zeros((9, 3), np.int32)), "int32 is not read"),
        (npy(np.zeros((9, 3), np.float32))[:-5], "claims"),
        (b"ply\nformat ascii 1.0\n", "mimsuite data pack"),
    ],
)
def test_what_is_no_cloud_is_corrupt(payload: bytes, message: str) -> None:
    with pytest.raises(CorruptSample, match=message):
        PointDecoder()(payload)


# --- views ----------------------------------------------------------------------------------------


def test_draws_are_keyed() -> None:
    made = views(rotate_y=True, perturb=0.06, jitter=0.01, dropout=0.5)
    first, again, other = (
        made.train(CLOUD, keyed_rng(number))["points"] for number in ("a", "a", "b")
    )
    assert first.shape == (64, 3)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_turn_behind_scale_and_shift_turns_the_shift_too() -> None:
    first, last = (
        views(rotate_y=True, rotate_last=last, scale=(1.0, 1.0)).train(CLOUD, keyed_rng(0))
        for last in (False, True)
    )
    shifts = [view["points"].mean(0) for view in (first, last)]
    assert not torch.allclose(*shifts)
    torch.testing.assert_close(shifts[0].norm(), shifts[1].norm())
    torch.testing.assert_close(shifts[0][1], shifts[1][1])  # the upright axis stays


def test_a_subset_is_of_the_cloud_and_normalised_behind_it() -> None:
    points = views(**STILL).train(CLOUD, keyed_rng(0))["points"]
    torch.testing.assert_close(points.mean(0), torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(points.norm(dim=1).max(), torch.tensor(1.0))
    raw = views(normalize="none", **STILL).train(CLOUD, keyed_rng(0))["points"]
    assert len(torch.unique(raw, dim=0)) == 64
    assert all(bool((point == CLOUD).all(1).any()) for point in raw)


def test_the_pool_is_the_farthest_points() -> None:
    made = views(subset="farthest", pool=80, normalize="none", **STILL)
    pool = CLOUD[made._farthest(CLOUD, 80)]
    points = made.train(CLOUD, keyed_rng(0))["points"]
    assert all(bool((pool == point).all(1).any()) for point in points)


def test_scales_and_shifts_stay_within_their_ranges() -> None:
    made = views(normalize="none", scale_axes="together", translate=0.1)
    for number in range(20):
        points = made.train(CLOUD, keyed_rng(number))["points"]
        still = views(normalize="none", **STILL).train(CLOUD, keyed_rng(number))["points"]
        scale = (points.amax(0) - points.amin(0)) / (still.amax(0) - still.amin(0))
        torch.testing.assert_close(scale, scale[:1].expand(3))
        assert 2 / 3 <= float(scale[0]) <= 1.5
        assert (points - still * scale).abs().max() <= 0.1 + 1e-5


def test_evaluation_is_the_same_every_time_and_votes_are_several_views() -> None:
    made = views()
    first = made.evaluate(CLOUD)["points"]
    assert first.shape == (64, 3)
    assert torch.equal(first, made.evaluate(CLOUD)["points"])
    voting = views(votes=3).test()
    assert (voting.rows, made.test().rows) == (3, 1)
    points = voting.evaluate(CLOUD)["points"]
    assert points.shape == (3, 64, 3)
    assert torch.equal(points, voting.evaluate(CLOUD)["points"])
    source = open_source("embedded:furniture", modality="points")
    batch = next(iter(eval_loader(source, voting, 2, positions=[0, 5])))
    flat = voting.normalizer("cpu")(batch)
    assert flat.views["points"].shape == (6, 64, 3)
    assert flat.label is not None
    assert flat.label.tolist() == [6, 1] * 3


def test_small_clouds_are_filled_up() -> None:
    for points in (views().train(CLOUD[:20], keyed_rng(0)), views().evaluate(CLOUD[:20])):
        assert points["points"].shape == (64, 3)
        assert len(torch.unique(points["points"], dim=0)) == 20


@pytest.mark.parametrize(
    ("cloud", "message"),
    [(CLOUD[:7], "7 points; .*groups and group_size need 8"), (torch.ones(90, 3), "equal")],
)
def test_what_makes_no_groups_is_corrupt(cloud: torch.Tensor, message: str) -> None:
    for normalize in ("before", "after", "none"):
        made = views(normalize=normalize)
        with pytest.raises(CorruptSample, match=message):
            made.train(cloud, keyed_rng(0))
        with pytest.raises(CorruptSample, match=message):
            made.evaluate(cloud)


def test_bad_clouds_are_left_out_and_named(tmp_path: Any) -> None:
    rng = np.random.default_rng(0)
    for number in range(12):
        cloud = rng.normal(size=(100, 3)).astype(np.float32)
        np.save(tmp_path / f"{number:02d}.npy", cloud[:5] if number == 3 else cloud)
    source = open_source(str(tmp_path), modality="points")
    loader = eval_loader(source, views(), 4)
    assert sum(len(batch) for batch in loader) == 11
    assert "5 points" in str(loader.damaged[0])
    for number in range(12):
        np.save(tmp_path / f"{number:02d}.npy", np.full((100, 3), np.nan, np.float32))
    with pytest.raises(DataError):
        list(eval_loader(source, views(), 4))


def test_the_raw_baseline_counts_points_in_cells() -> None:
    made = views()
    source = open_source("embedded:furniture", modality="points")
    batch = next(iter(eval_loader(source, made, 3, positions=[0, 1, 2])))
    raw = made.raw(made.normalizer("cpu")(batch))
    assert raw.shape == (3, 512)
    torch.testing.assert_close(raw.sum(1), torch.ones(3))


# --- the embedded set -----------------------------------------------------------------------------


def test_furniture_has_its_classes_and_credits() -> None:
    source = open_source("embedded:furniture", modality="points")
    labels = source.labels()
    assert len(source) == 820
    assert source.classes is not None
    assert len(source.classes) == 9
    assert np.bincount(labels[labels >= 0]).min() >= 30
    assert (labels >= 0).sum() == 390
    from importlib.resources import files

    credits = files("mimsuite.data") / "embedded" / "furniture820_credits.tsv"
    rows = credits.read_text(encoding="utf-8").splitlines()
    assert len(rows) == 821
    assert all(row.split("\t")[4] in ("CC0", "CC-BY-3.0", "CC-BY-3.0-US") for row in rows[1:])


def test_another_modality_is_refused() -> None:
    with pytest.raises(UserError, match="holds points samples, but the task needs image"):
        open_source("embedded:furniture")
    with pytest.raises(UserError, match="no split 'test'"):
        open_source("embedded:furniture", "test", modality="points")
