"""Figures of real data, recomputed by scikit-learn from what `mimsuite features` writes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler, normalize

from mimsuite.cli.main import main

POINTS = 0.005  # half a point of accuracy


@pytest.fixture(scope="module")
def fashion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny encoder, trained for an epoch on the embedded images."""
    out = tmp_path_factory.mktemp("fashion") / "run"
    sizes = ["model.encoder.width=32", "model.encoder.depth=2", "model.decoder.width=16"]
    words = ["pretrain", "image/mae-tiny-fashion", *sizes, "schedule.epochs=1"]
    words += ["schedule.warmup_epochs=0", "data.workers=0", "--out", str(out)]
    assert main(words) == 0
    return out


def answer(capsys: pytest.CaptureFixture[str], *words: object) -> dict:
    capsys.readouterr()
    assert main([str(word) for word in words]) == 0
    return json.loads(capsys.readouterr().out)


def tables(run: Path, chosen: str, folder: Path) -> dict[str, dict[str, np.ndarray]]:
    pool, layer = chosen.split("@")
    for split in ("train", "test"):
        words = ["--split", split, "--pool", pool, "--layer", layer]
        file = folder / f"{split}.safetensors"
        assert main(["features", str(run), "--out", str(file), *words]) == 0
    return {split: load_file(folder / f"{split}.safetensors") for split in ("train", "test")}


def test_linear_probe(fashion: Path, tmp_path: Path, capsys) -> None:
    result = answer(capsys, "linear-probe", fashion, "--json")
    chosen = result["chosen"]["pretrained"]
    read = tables(fashion, chosen["features"], tmp_path)
    scaler = StandardScaler().fit(read["train"]["features"])
    model = LogisticRegression(C=chosen["C"], max_iter=2000)
    model.fit(scaler.transform(read["train"]["features"]), read["train"]["labels"])
    found = model.score(scaler.transform(read["test"]["features"]), read["test"]["labels"])
    assert result["accuracy"]["pretrained"] == pytest.approx(found, abs=POINTS)
    assert found > 0.5


def test_nearest_neighbours(fashion: Path, tmp_path: Path, capsys) -> None:
    result = answer(capsys, "knn", fashion, "eval.neighbours=5", "--json")
    read = tables(fashion, result["chosen"]["pretrained"]["features"], tmp_path)
    # Cosine similarity: directions only; ties go to the class of the nearest, as weights do that
    # outvote nobody.
    model = KNeighborsClassifier(5, weights=lambda d: 1 + 1e-3 * (2 - d))
    model.fit(normalize(read["train"]["features"]), read["train"]["labels"])
    found = model.score(normalize(read["test"]["features"]), read["test"]["labels"])
    assert result["accuracy"]["pretrained"] == pytest.approx(found, abs=POINTS)
    plain = KNeighborsClassifier(5).fit(
        normalize(read["train"]["features"]), read["train"]["labels"]
    )
    near = plain.score(normalize(read["test"]["features"]), read["test"]["labels"])
    assert near == pytest.approx(found, abs=0.03)  # with ties to the lowest class
