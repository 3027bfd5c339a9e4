"""Dice and HD95 of whole scans: by brute force, by hand, by MONAI where it is installed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mimsuite import config
from mimsuite.batch import Batch
from mimsuite.evaluate.scoring.scans import ScanScorer, by_class
from mimsuite.evaluate.scoring.scorer import scorer_of
from mimsuite.evaluate.scoring.surface_distance import hd95
from tests import needs

ndimage = needs.module("scipy.ndimage")
SPACING = (1.0, 1.5, 2.5)


def blobs(seed: int) -> np.ndarray:
    """A few random blobs, some of which touch the faces of the volume."""
    noise = np.random.default_rng(seed).normal(size=(13, 11, 9))
    return ndimage.gaussian_filter(noise, 1.2) > 0.15


def plain_hd95(found: np.ndarray, true: np.ndarray, spacing: Any) -> float:
    """Every distance between every two voxels of the surfaces."""

    def surface(mask: np.ndarray) -> np.ndarray:
        padded = np.pad(mask, 1)
        edge = np.zeros_like(mask)
        for axis in range(3):
            for step in (-1, 1):
                shifted = np.roll(padded, step, axis)[1:-1, 1:-1, 1:-1]
                edge |= mask & ~shifted
        return np.argwhere(edge) * np.array(spacing)

    one, other = surface(found), surface(true)
    table = np.linalg.norm(one[:, None] - other[None], axis=-1)
    return max(np.percentile(table.min(1), 95), np.percentile(table.min(0), 95))


@pytest.mark.parametrize("seed", range(6))
def test_hd95_equals_brute_force(seed: int) -> None:
    found, true = blobs(seed), blobs(seed + 100)
    assert hd95(found, true, SPACING) == pytest.approx(plain_hd95(found, true, SPACING))


@pytest.mark.parametrize("seed", range(3))
def test_hd95_and_dice_equal_monais(seed: int) -> None:
    metrics = needs.module("monai.metrics")
    found, true = (torch.tensor(blobs(s)).float()[None, None] for s in (seed, seed + 100))
    theirs = metrics.compute_hausdorff_distance(
        found, true, True, percentile=95, spacing=list(SPACING)
    )
    ours = hd95(found[0, 0].bool().numpy(), true[0, 0].bool().numpy(), SPACING)
    assert ours == pytest.approx(float(theirs), rel=1e-5)
    row = scorer().judged(found[0, 0], true[0, 0])
    assert row[0, 0] == pytest.approx(float(metrics.compute_dice(found, true)), rel=1e-5)


def test_distances_are_in_millimetres() -> None:
    one, other = np.zeros((20, 20, 20), bool), np.zeros((20, 20, 20), bool)
    one[5, 5, 5] = other[5, 5, 9] = True
    assert hd95(one, other, SPACING) == pytest.approx(10.0)
    assert hd95(one, one, SPACING) == 0.0
    assert np.isnan(hd95(one, one & ~one, SPACING))


def scorer() -> ScanScorer:
    resolved = config.with_overrides(
        config.load("volume/segment-tiny-phantoms"), {"augment.spacing": 2.0}
    )
    found = scorer_of(resolved)
    assert isinstance(found, ScanScorer)
    assert found.main_figure.name == "dice"
    return found


def test_perfect_scans_score_one_and_missed_classes_nothing() -> None:
    labels = torch.randint(5, (1, 8, 8, 8), dtype=torch.uint8)
    labels[labels == 4] = 0
    batch = Batch.of_views({"scan": torch.zeros(1, 1, 8, 8, 8), "labels": labels})
    method = SimpleNamespace(voxel_labels=lambda scan: labels[0].long())
    (perfect,) = scorer().judge(method, batch)
    assert np.isnan(perfect[:, 3]).all()  # a class that occurs nowhere does not count
    assert scorer().measure([perfect]) == {"dice": 1.0, "hd95": 0.0}
    missed = labels[0].long().clone()
    missed[missed == 3] = 0
    row = scorer().judged(missed, labels[0])
    assert row[0].tolist()[:3] == [1.0, 1.0, 0.0]
    assert row[1, 2] == pytest.approx(np.sqrt(3) * 8 * 2)  # the diagonal
    report = scorer().report([perfect, row], None)
    assert report["per_class"]["liver"]["dice"] == pytest.approx(0.5)
    assert report["per_class"]["bone"] == {"dice": None, "hd95": None}
    assert report["dice"] == pytest.approx((1 + 1 + 0.5) / 3)


def test_unknown_voxels_are_not_scored() -> None:
    true = torch.ones(4, 4, 4, dtype=torch.uint8)
    true[2:] = 255
    assert scorer().judged(torch.ones(4, 4, 4).long(), true)[:, 0].tolist() == [1.0, 0.0]
    assert np.isnan(by_class([scorer().judged(torch.zeros(4, 4, 4), true * 0)])).all()
