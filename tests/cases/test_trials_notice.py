"""What is dropped of single samples, and commands that say what a source holds and is not used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mimsuite import config
from mimsuite.cli.main import main
from mimsuite.data import open_training_set, views_of
from mimsuite.data.image.decode import ImageDecoder
from mimsuite.data.image.kinds import avif_bits, has_avif
from mimsuite.data.packing.inspection import unused_in
from mimsuite.data.unused import noticing
from tests.needs import module

PARTS = "the part that each point is of, which target.kind=parts learns"
DEEP = "low bits of AVIF images of more than 8 bits"


def recipe_of(name: str, source: Path) -> config.Recipe:
    return config.with_overrides(config.load(name), {"data.source": str(source)}, "test").recipe


@pytest.mark.parametrize("columns", [3, 4, 7])
def test_parts_that_a_recipe_does_not_learn_are_noticed(columns: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(2):
        cloud = rng.normal(size=(300, columns)).astype(np.float32)
        if columns > 3:
            cloud[:, -1] = number
        np.save(tmp_path / f"{number}.npy", cloud)
    recipe = recipe_of("points/mae-tiny-furniture", tmp_path)
    lines = unused_in(open_training_set(recipe), views_of(recipe)).lines()
    assert any(line.startswith(PARTS) for line in lines) == (columns > 3)
    recipe = recipe_of("points/segment-tiny-parts", tmp_path)
    lines = unused_in(open_training_set(recipe), views_of(recipe)).lines()
    assert not any(line.startswith(PARTS) for line in lines)


def avif(depth: int) -> bytes:
    """A gray ramp."""
    codecs = module("imagecodecs")
    ramp = np.arange(16 * 16).reshape(16, 16) * (2**depth // 256)
    pixels = np.stack([ramp] * 3, -1).astype(np.uint8 if depth == 8 else np.uint16)
    data: bytes = codecs.avif_encode(pixels, level=90, bitspersample=depth)
    return data


@pytest.mark.skipif(not has_avif(), reason="this Pillow reads no AVIF")
@pytest.mark.parametrize("depth", [8, 10, 12])
@pytest.mark.parametrize("channels", ["rgb", "gray", "native"])
def test_deep_avif_is_noticed(depth: int, channels: str) -> None:
    assert avif_bits(avif(depth)) == depth
    with noticing() as found:
        assert ImageDecoder(channels)(avif(depth)).dtype == torch.uint8
    assert (DEEP in found) == (depth > 8)


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("album")
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 3)):
        for label in ("a", "b"):
            place = folder / split / label
            place.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 255, (28, 28), dtype=np.uint8)
                frames = [Image.fromarray(pixels), Image.fromarray(255 - pixels)]
                frames[0].save(place / f"{number}.gif", save_all=True, append_images=frames[1:])
            (place / "notes.psd").write_bytes(b"x")
    return folder


@pytest.fixture(scope="module")
def run_of(album: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    words = ["pretrain", "image/mae-tiny-fashion", "--smoke", "--data", str(album)]
    assert main([*words, "train.global_batch=4", "--out", str(out)]) == 0
    return out


COMMANDS = {
    "features": (["features", "--data", "ALBUM", "--out", "OUT/f.safetensors"], 1),
    "knn": (["knn", "--data", "ALBUM", "--out", "OUT/k.json"], 2),
    "linear-probe": (["linear-probe", "--data", "ALBUM", "--out", "OUT/l.json"], 2),
    "reconstruct": (["reconstruct", "--input", "ALBUM", "--out", "OUT/r"], 1),
    "score": (["score", "--data", "ALBUM", "--out", "OUT/s.csv"], 1),
}


@pytest.mark.parametrize("name", list(COMMANDS))
def test_commands_say_it_once_for_each_split(
    name: str, album: Path, run_of: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (command, *words), splits = COMMANDS[name]
    words = [word.replace("ALBUM", str(album)).replace("OUT", str(tmp_path)) for word in words]
    assert main([command, str(run_of), *words]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert said.count(".psd files") == splits
    assert said.count("frames after the first") == splits


def test_finetune_and_evaluate_say_it_once_for_each_split(
    album: Path, run_of: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "tuned"
    words = ["finetune", str(run_of), "--data", str(album), "--out", str(out), "--smoke"]
    assert main([*words, "train.global_batch=4"]) == 0
    found = capsys.readouterr()
    assert " ".join((found.out + found.err).split()).count(".psd files") == 2
    tuned = next(path.parent for path in out.rglob("config.yaml"))
    assert main(["evaluate", str(tuned), "--data", str(album)]) == 0
    assert " ".join(capsys.readouterr().err.split()).count(".psd files") == 1


def test_labels_that_are_no_classes_are_called_so(
    album: Path, run_of: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"{path},{number * 0.5}" for number, path in enumerate(sorted(album.rglob("*.gif")))]
    (tmp_path / "l.csv").write_text("\n".join(["path,label", *rows]))
    assert main(["linear-probe", str(run_of), "--data", str(tmp_path / "l.csv")]) == 3
    assert "read them with data.targets=regression" in capsys.readouterr().err
