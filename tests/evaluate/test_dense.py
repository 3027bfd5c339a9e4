"""Parts of the dense probe: interpolation, figures, neighbours, intervals, scoring."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import jaccard_score

from mimsuite import config
from mimsuite.batch import Batch
from mimsuite.errors import UserError
from mimsuite.evaluate.dense.heads import _draw, train_heads
from mimsuite.evaluate.dense.interval import gains
from mimsuite.evaluate.dense.knn import patch_bank
from mimsuite.evaluate.dense.scoring import count_constant, count_images, scaled_truths
from mimsuite.evaluate.dense.tasks import Depth, Segments
from mimsuite.methods import build

CPU = torch.device("cpu")
K = 3


def recipe(**keys: Any) -> Any:
    given = {"schedule.epochs": 20, "train.global_batch": 4, "target.pixels": 64, **keys}
    return config.with_overrides(config.load("image/dense-scenes"), given).recipe


def world(seed: int = 0, images: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (N, D, 4, 4) that say the class of their patch, masks and depth (N, 16, 16)."""
    rng = np.random.default_rng(seed)
    patches = rng.integers(K, size=(images, 4, 4))
    table = np.eye(K)[patches].transpose(0, 3, 1, 2) + 0.1 * rng.normal(size=(images, K, 4, 4))
    noise = 5 + rng.normal(size=(images, 2, 4, 4))  # features that say nothing
    truth = patches.repeat(4, axis=1).repeat(4, axis=2).astype(np.uint8)
    metres = np.array([1.0, 2.0, 4.0], np.float32)[truth]
    return np.concatenate([table, noise], axis=1).astype(np.float16), truth, metres


def test_features_at_drawn_pixels_are_those_of_the_interpolated_map() -> None:
    table, truth, _ = world()
    rows = np.array([0, 5])
    x, y = _draw(table, truth, rows, 50, np.random.default_rng(1))
    maps = F.interpolate(torch.from_numpy(table[rows]).float(), (16, 16), mode="bilinear")
    at = np.random.default_rng(1).integers(256, size=(2, 50))
    for number in range(2):
        whole = maps[number].flatten(1).T[torch.from_numpy(at[number])]
        torch.testing.assert_close(x[50 * number : 50 * (number + 1)], whole, atol=1e-5, rtol=1e-5)
        expected = truth[rows[number]].ravel()[at[number]]
        assert np.array_equal(y[50 * number : 50 * (number + 1)].numpy(), expected)


def test_heads_learn_segments_each_at_its_own_rate_and_leave_out_what_has_no_class() -> None:
    table, truth, _ = world()
    truth[:, 0] = 255
    task, rows = Segments(K), np.arange(12)
    heads = train_heads(table, truth, rows, task, [1e-6, 3e-2], recipe(), CPU)
    right = []
    for head in heads:
        counts = count_images(head, task, table, scaled_truths(truth), CPU)
        assert counts[:, :, 2].sum() == (truth != 255).sum()
        right.append(task.figures_of(counts)["pixel_accuracy"])
    assert heads[0].weight.abs().max() < 1e-3 < heads[1].weight.abs().max()
    assert right[1] > 0.85  # not all: interpolation blurs the edges
    again = train_heads(table, truth, rows, task, [1e-6, 3e-2], recipe(), CPU)
    assert torch.equal(again[1].weight, heads[1].weight)


def test_heads_learn_the_logarithm_of_depth() -> None:
    table, _, metres = world()
    metres[:, 0] = 0
    task = Depth(0.1, 20)
    (head,) = train_heads(table, metres, np.arange(12), task, [3e-2], recipe(), CPU)
    counts = count_images(head, task, table, scaled_truths(metres), CPU)
    constant, answer = count_constant(task, metres, scaled_truths(metres))
    assert counts[:, 0].tolist() == [15 * 16] * 12
    assert answer == pytest.approx(metres[metres > 0].mean())
    ours, theirs = task.figures_of(counts), task.figures_of(constant)
    assert ours["delta1"] > theirs["delta1"] + 0.2
    assert ours["rmse"] < theirs["rmse"]


def test_segment_figures_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(K, size=(5, 8, 8)).astype(np.uint8)
    told = rng.integers(K, size=(5, 8, 8)).astype(np.uint8)
    task = Segments(K + 1)  # one class that neither occurs nor is told
    pairs = zip(torch.from_numpy(told), torch.from_numpy(truth), strict=True)
    counts = np.stack([task.count(*pair) for pair in pairs])
    expected = jaccard_score(truth.ravel(), told.ravel(), average="macro")
    figures = task.figures_of(counts)
    assert figures["miou"] == pytest.approx(expected)
    assert figures["pixel_accuracy"] == pytest.approx((truth == told).mean())
    assert np.isnan(Segments.iou(counts.sum(0))[K])


def test_depth_figures_are_means_over_images() -> None:
    task = Depth(0.5, 10)
    truth = torch.tensor([[1.0, 2.0, 0.0, 20.0]])
    count = task.count(torch.tensor([[1.2, 3.0, 5.0, 5.0]]), truth)
    assert count.tolist() == pytest.approx([2, 1, 0.04 + 1])
    nothing = task.count(torch.ones(1, 4), torch.zeros(1, 4))
    other = np.array([10.0, 10.0, 0.0])
    figures = task.figures_of(np.stack([count, nothing, other]))
    assert figures["delta1"] == pytest.approx((0.5 + 1) / 2)
    assert figures["rmse"] == pytest.approx(np.sqrt(1.04 / 2) / 2)


def test_nearest_patches_segment_what_is_alike() -> None:
    table, truth, _ = world()
    table = table[:, :K]
    test, answers, _ = world(seed=1)
    section = recipe(**{"target.segments.bank": 100, "eval.neighbours": 3})
    bank = patch_bank(table, truth, np.arange(12), K, section, CPU)
    assert bank.features.shape == (100, K)
    torch.testing.assert_close(bank.shares.sum(1), torch.ones(100))
    counts = count_images(bank, Segments(K), test[:, :K], scaled_truths(answers), CPU)
    assert Segments(K).figures_of(counts)["pixel_accuracy"] > 0.85
    truth[:, :8] = 255  # patches without a class are no neighbours
    small = patch_bank(table, truth, np.arange(12), K, recipe(), CPU)
    assert len(small.features) == 12 * 8


def test_truths_of_several_sizes_are_scored_each_at_its_own() -> None:
    task = Segments(K)
    truths = [torch.zeros(size, dtype=torch.uint8) for size in ((4, 4), (4, 4), (6, 3), (4, 4))]
    sizes = []

    def outputs(features: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        sizes.append((len(features), size))
        return F.one_hot(torch.zeros(len(features), *size).long(), K).permute(0, 3, 1, 2).float()

    counts = count_images(outputs, task, np.zeros((4, 2, 1, 1)), iter(truths), CPU)
    assert sizes == [(2, (4, 4)), (1, (6, 3)), (1, (4, 4))]
    assert counts[:, 0, 0].tolist() == [16, 16, 18, 16]


def test_intervals_cover_images_and_seeds() -> None:
    rng = np.random.default_rng(0)
    base = np.stack([np.full((2, 40), 100.0), rng.integers(30, 60, (2, 40)), np.ones((2, 40))], -1)
    better = base.copy()
    better[..., 1] += 10
    task = Depth(0.1, 10)
    found = gains(task, better, base)
    assert found["delta1"].difference == pytest.approx(0.1)
    assert found["delta1"].low == pytest.approx(0.1)  # paired: what is hard for both cancels
    assert (found["delta1"].seeds, found["delta1"].samples) == (2, 40)
    same = gains(task, base, base[::-1])
    assert same["delta1"].low < 0 < same["delta1"].high or same["delta1"].difference == 0
    with pytest.raises(ValueError, match="not paired"):
        gains(task, base, base[:1])


def test_the_crop_of_depth_needs_stored_truth() -> None:
    from mimsuite.errors import UserError

    assert config.load("image/dense-nyuv2").recipe.target.depth.crop == (45, 471, 41, 601)
    with pytest.raises(UserError, match="set scored to stored"):
        config.load("image/dense-nyuv2", ["target.scored=resolution"])
    with pytest.raises(UserError, match="at least one"):
        config.load("image/dense-scenes", ["target.segments=null", "target.depth=null"])
    with pytest.raises(UserError, match="not beyond nearest"):
        config.load("image/dense-scenes", ["target.depth.nearest=30"])


def test_only_the_crop_is_scored() -> None:
    from mimsuite.evaluate.dense.scoring import _stored

    source: Any = SimpleNamespace(truth=lambda position: (None, torch.full((4, 4), 2.0)))
    (truth,) = _stored(source, [0], "depth", (1, 3, 0, 2))
    assert int((truth > 0).sum()) == 4
    assert bool((truth[1:3, 0:2] == 2).all())


def test_heads_may_read_the_class_tokens_beside_each_patch() -> None:
    """Of Pixio, whose class tokens are several: their mean, also between blocks."""
    keys = {
        "model.read": "patches+classes",
        "model.encoder.class_tokens": 3,
        "model.encoder.depth": 2,
    }
    base = config.load("image/dense-scenes")
    torch.manual_seed(0)
    reader: Any = build(config.with_overrides(base, keys).recipe)
    rows, columns = reader.encoder.grid
    size, channels = reader.encoder.section.patch_size, reader.encoder.section.in_channels
    batch = Batch.of_images(torch.randn(2, channels, rows * size, columns * size))
    found, features = reader.maps(batch, [1, 2]), reader.encode(batch, layers=[1])
    first = features.layers[1]
    for layer, classes, patches in (
        (1, first[:, :3], first[:, 3:]),
        (2, features.cls, features.tokens),
    ):
        width = patches.shape[2]
        maps = found[layer].flatten(2).transpose(1, 2)  # (B, N, 2 D)
        assert torch.equal(maps[..., :width], patches)
        assert torch.equal(maps[:, 5, width:], classes.mean(dim=1))
    without = build(config.with_overrides(base, {**keys, "model.encoder.class_tokens": 0}).recipe)
    with pytest.raises(UserError, match=r"set model.read=patches"):
        without.maps(batch, [2])  # type: ignore[operator]
