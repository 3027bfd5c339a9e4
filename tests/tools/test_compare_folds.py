"""Folds are joined into one figure of the whole set, and only complete seeds count."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / "tools")]
import compare_folds  # noqa: E402


def part(labels: list[int], ours: str, theirs: str) -> dict[str, Any]:
    return {"labels": labels, "right": {"pretrained": ours, "random_init": theirs}}


def test_joined_folds_are_scored_as_one_set() -> None:
    whole = compare_folds.joined([part([0, 0, 1], "110", "100"), part([0], "1", "0")])
    assert whole["right"] == {"pretrained": "1101", "random_init": "1000"}
    assert whole["accuracy"] == {"pretrained": 0.75, "random_init": 0.25}
    assert whole["balanced_accuracy"]["pretrained"] == pytest.approx(0.5)
    assert whole["balanced_accuracy"]["random_init"] == pytest.approx(1 / 6)


def test_the_gain_is_the_mean_over_seeds() -> None:
    seeds = [compare_folds.joined([part([0, 1] * 20, "1" * 40, "10" * 20)])] * 3
    assert compare_folds.gain(seeds, "accuracy", "random_init").startswith(", +50.0 [+")
    assert compare_folds.spread(seeds, "accuracy", "random_init") == "50.0"
    assert compare_folds.gain(seeds, "accuracy", "raw_input") == ""


def test_a_seed_that_lacks_a_fold_is_left_out(tmp_path: Path) -> None:
    options = argparse.Namespace(recipe="points/x", out=tmp_path, folds=2, seeds=[0], keys=[])
    for fold in range(2):
        assert compare_folds.whole_set(0, "knn", options) is None
        folder = compare_folds.place(0, fold, options)
        folder.mkdir(parents=True)
        (folder / "knn.json").write_text(json.dumps(part([0, 1], "11", "10")))
    assert "2 folds" in compare_folds.tables(options)
    assert "100.0" in compare_folds.tables(options)
