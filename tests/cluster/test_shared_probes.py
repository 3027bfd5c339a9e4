"""Probes by several ranks give the very figures of one process."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from mimsuite.cluster.peers import ALONE
from mimsuite.evaluate.features import FeatureSet, _positions, gathered

RECIPE = (
    *("image/mae-tiny-fashion", "--smoke", "data.limit=32", "train.global_batch=16"),
    *("data.lanes=8", "schedule.epochs=1", "log.pictures_every_epochs=null"),
)
FEW = ("eval.batch=16", "--device", "cpu")


@pytest.fixture(scope="module")
def run(ranks, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("probed") / "run"
    codes, said = ranks.run("pretrain", *RECIPE, "--out", out, ranks=1)
    assert codes == [0], said
    return out


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """100 labelled photos to train on, 20 to test on."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for split, count in (("train", 100), ("test", 20)):
        for number in range(count):
            path = folder / split / "ab"[number % 2] / f"{number:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 200, (28, 28)) + 50 * (number % 2)
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    return folder


@pytest.mark.parametrize("command", ["linear-probe", "knn"])
def test_the_figure_of_one_process(ranks, run, photos, tmp_path, command):
    found = []
    for world in (1, 2, 3):
        out = tmp_path / f"{world}.json"
        words = (command, run, *FEW, "--data", photos, "--baselines", "--out", out)
        codes, said = ranks.run(*words, ranks=world)
        assert codes == [0] * world, said
        assert said.count("written to") == 1
        found.append(json.loads(out.read_text()))
    assert found[0]["accuracy"]["random_init"] is not None
    assert found[1] == found[0]
    assert found[2] == found[0]


def test_the_features_of_one_process(ranks, run, photos, tmp_path):
    for world in (1, 2):
        out = tmp_path / f"{world}.safetensors"
        words = ("features", run, *FEW, "--data", photos, "--out", out)
        codes, said = ranks.run(*words, ranks=world)
        assert codes == [0] * world, said
    one, two = (load_file(tmp_path / f"{world}.safetensors") for world in (1, 2))
    assert one.keys() == two.keys() == {"features", "labels"}
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert (tmp_path / "1.json").read_text() == (tmp_path / "2.json").read_text()


def test_ranks_without_a_sample_take_part(ranks, run, photos, tmp_path):
    out = tmp_path / "f.safetensors"
    words = ("features", run, *FEW, "--data", photos, "--split", "test", "--out", out)
    codes, said = ranks.run(*words, ranks=4)  # two batches for four ranks
    assert codes == [0] * 4, said
    assert len(load_file(out)["features"]) == 20


def test_parts_are_whole_batches_in_order():
    class Rank:
        def __init__(self, rank: int) -> None:
            self.rank, self.world = rank, 3

    parts = [_positions(100, 16, Rank(rank)) for rank in range(3)]
    assert [number for part in parts for number in part] == list(range(100))
    assert all(part.start % 16 == 0 for part in parts)
    assert _positions(100, 16, ALONE) == range(100)


def test_gathering_alone_changes_nothing():
    found = FeatureSet({"cls@1": torch.ones(2, 3)}, torch.tensor([0, 1]), ["a", "b"], None)
    same = gathered(found, ALONE)
    assert same.keys == found.keys
    assert torch.equal(same.features["cls@1"], found.features["cls@1"])
