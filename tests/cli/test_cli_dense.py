"""`mimsuite dense-probe` through the command line, and the commands of its page."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mimsuite.cli.main import main
from mimsuite.data.dense import DenseSource
from mimsuite.errors import UserError
from mimsuite.evaluate.dense.result import counts_of, gains_over_seeds
from mimsuite.evaluate.dense.tasks import Segments
from tests import needs
from tests.data import dense_folders as folders

TOP = Path(__file__).parents[2]
SMALL = ("model.encoder.width=16", "model.encoder.depth=2", "model.encoder.heads=2")
QUICK = ("schedule.epochs=4", "schedule.warmup_epochs=0", "target.resolution=32", "data.workers=0")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folders.scenes(tmp_path_factory.mktemp("dense") / "scenes")


@pytest.fixture(scope="module")
def run(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dense-runs") / "tiny"
    words = ["pretrain", "image/mae-scenes", "--data", scenes / "images", "--out", out, "--smoke"]
    words += ["model.encoder.image_size=32", "train.global_batch=4", "train.device=cpu", *SMALL]
    assert main([str(word) for word in words]) == 0
    return out


def answer(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["dense-probe", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_everything_is_measured_against_its_baselines(run: Path, scenes: Path, capsys) -> None:
    result = answer(capsys, run, "--data", scenes, "--baselines", *QUICK)
    assert result == json.loads((run / "dense_probe.json").read_text())
    variants = {"pretrained", "random_init", "raw_input", "majority"}
    names = ["miou", "pixel_accuracy", "knn_miou", "knn_pixel_accuracy", "delta1", "rmse"]
    assert [figure["name"] for figure in result["figures"]] == names
    assert all("32 x 32" in figure["title"] for figure in result["figures"])
    for name in names:
        assert set(result[name]) == variants
        assert None not in result[name].values()
    assert result["synthetic"] is True
    assert result["recipe"] == "image/dense-scenes"
    assert (result["n_train"], result["n_validation"], result["n_test"]) == (12, 2, 6)
    assert set(result["intervals"]) == variants - {"pretrained"}
    gain = result["intervals"]["majority"]["miou"]
    assert gain["difference"] == pytest.approx(
        result["miou"]["pretrained"] - result["miou"]["majority"]
    )
    assert gain["low"] > 0
    assert set(result["iou"]["pretrained"]) == set(folders.CLASSES)
    counts = counts_of(result, "pretrained", "segments")
    assert counts.shape == (6, 3, 3)
    assert Segments(3).figures_of(counts)["miou"] == pytest.approx(result["miou"]["pretrained"])
    assert len(result["keys"]) == 6


def test_tables_name_the_label_resolution_and_that_scenes_are_synthetic(
    run: Path, scenes: Path, tmp_path: Path, capsys
) -> None:
    words = ["--data", str(scenes), "--out", str(tmp_path / "d.json"), *QUICK]
    assert main(["dense-probe", str(run), "image/dense-scenes", *words]) == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    flat = " ".join(shown.err.split())
    for word in ("linear segmentation", "kNN segmentation", "linear depth"):
        assert f"{word} (synthetic scenes, labels 32 x 32)" in flat
    assert "say nothing about photographs" in flat
    result = json.loads((tmp_path / "d.json").read_text())
    assert result["miou"]["random_init"] is None


def test_the_test_split_is_read_once_and_the_seed_decides(
    run: Path, scenes: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: Counter[str] = Counter()
    read = DenseSource.read

    def counted(self: DenseSource, shard: int, offset: int) -> Any:
        reads[self.key(shard, offset)] += 1
        return read(self, shard, offset)

    monkeypatch.setattr(DenseSource, "read", counted)
    first = answer(capsys, run, "--data", scenes, *QUICK, "--seed", 1)
    assert len(reads) == 18
    assert set(reads.values()) == {1}
    assert first == answer(capsys, run, "--data", scenes, *QUICK, "--seed", 1)
    other = answer(capsys, run, "--data", scenes, *QUICK, "--seed", 2)
    assert other["miou"] != first["miou"]


@pytest.mark.parametrize("layout", ["ade20k", "voc", "nyuv2"])
def test_other_layouts_are_found_and_scored_as_stored(
    layout: str, run: Path, tmp_path: Path, capsys
) -> None:
    root = getattr(folders, layout)(tmp_path / layout)
    words = ["schedule.epochs=2", "schedule.warmup_epochs=0", "data.workers=0"]
    words += ["target.depth.crop=[0, 20, 4, 30]"] if layout == "nyuv2" else []
    result = answer(capsys, run, "--data", root, *words)
    assert result["recipe"] == f"image/dense-{layout}"
    assert result["resolution"] == "as stored"
    assert result["synthetic"] is False
    assert result["measured"] == (["depth"] if layout == "nyuv2" else ["segments", "knn"])
    if layout == "nyuv2":
        assert counts_of(result, "pretrained", "depth")[:, 0].tolist() == [20 * 26] * 3


@pytest.mark.parametrize("kind", ["beit", "convvit", "crate"])
def test_any_image_encoder_can_be_read(kind: str) -> None:
    import torch

    from mimsuite import config
    from mimsuite.batch import Batch
    from mimsuite.methods import build

    words = [f"model.encoder.kind={kind}", "model.encoder.image_size=32", *SMALL]
    if kind == "convvit":
        words += ["model.encoder.conv_width=[8, 8]", "model.encoder.conv_depth=[1, 1]"]
    reader: Any = build(config.load("image/dense-scenes", words).recipe)
    maps = reader.maps(Batch.of_images(torch.randn(2, 3, 32, 32)), [2, 1])
    assert {layer: tuple(table.shape) for layer, table in maps.items()} == {
        1: (2, 16, 4, 4),
        2: (2, 16, 4, 4),
    }


def test_wrong_commands_are_refused(run: Path, scenes: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "empty").mkdir()
    cases = [
        ([], "--data FOLDER"),
        (["--data", str(tmp_path / "none")], "no such folder"),
        (["--data", str(tmp_path / "empty")], "none of the supported layouts"),
        (["image/mae-tiny-finetune", "--data", str(scenes)], "is a finetune recipe"),
        (["image/dense-voc", "--data", str(scenes)], "data.layout=voc"),
        (["image/dense-scenes", "two", "--data", str(scenes)], "'two' is not a key=value"),
        (["--data", str(scenes), "eval.layers=[9]"], "blocks 1 to 2"),
        (["--data", str(scenes), "eval.split=train"], "eval.split=train"),
        (["--data", str(scenes), "target.resolutoin=8"], "did you mean"),
    ]
    for words, message in cases:
        capsys.readouterr()
        assert main(["dense-probe", str(run), *words]) == 2, words
        shown = capsys.readouterr().err
        assert message.lower() in shown.lower(), shown
        assert "Traceback" not in shown
    assert main(["pretrain", "image/dense-scenes", "--data", str(scenes)]) == 2
    assert "dense-probe RUN" in capsys.readouterr().err


def test_seeds_are_compared_on_the_same_images(
    run: Path, scenes: Path, tmp_path: Path, capsys
) -> None:
    paths = []
    for seed in (0, 1):
        paths.append(str(tmp_path / f"{seed}.json"))
        words = ["--data", scenes, *QUICK, "--seed", seed, "--baselines", "--out", paths[-1]]
        answer(capsys, run, *words)
    results = [json.loads(Path(path).read_text()) for path in paths]
    gain = gains_over_seeds(results, "random_init")["miou"]
    means = {v: np.mean([one["miou"][v] for one in results]) for v in ("pretrained", "random_init")}
    assert gain.difference == pytest.approx(means["pretrained"] - means["random_init"], abs=1e-6)
    assert gain.low <= gain.difference <= gain.high
    with pytest.raises(UserError, match="'keys' differs"):
        gains_over_seeds([{**results[0], "keys": results[0]["keys"][:-1]}, results[1]], "raw_input")


def page_commands() -> list[str]:
    page = (TOP / "docs" / "dense.md").read_text()
    found = re.findall(r"^```\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    return [line for block in found for line in block.splitlines() if line.strip()]


def test_the_commands_of_the_page_run(tmp_path: Path, monkeypatch, capsys) -> None:
    needs.pybullet()
    monkeypatch.chdir(tmp_path)
    lines = page_commands()
    assert len(lines) == 3
    for line in lines:
        words = shlex.split(line.partition("  #")[0])
        if words[0] == "python":
            done = subprocess.run([sys.executable, str(TOP / words[1]), *words[2:]], timeout=120)
            assert done.returncode == 0
            continue
        assert words[0] == "mimsuite"
        small = pairwise(words)  # leaves out the first, mimsuite
        words = ["20" if last == "--count" else word for last, word in small]
        if words[0] == "pretrain":
            words += ["--smoke", "train.global_batch=4", "train.device=cpu"]
        if words[0] == "dense-probe":
            words += ["--smoke"]
        assert main(words) == 0, words
