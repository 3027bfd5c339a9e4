"""The benchmark of the loader runs, compares what it says it compares, and prints ratios."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mimsuite.cli.main import main
from mimsuite.config.keys.shared import AugmentSection
from mimsuite.data import open_source
from mimsuite.data.image import jpeg
from mimsuite.errors import DataError, UserError
from mimsuite.train import bench_data as bench
from mimsuite.train.bench_data import bench_data


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few samples: this is about what is compared, not about how long it takes."""
    monkeypatch.setattr(bench, "READ_SAMPLES", 240)
    monkeypatch.setattr(bench, "VIEW_SAMPLES", 12)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, made in enumerate(bench.photos(6)):
        (folder / f"{number}.jpg").write_bytes(made.content)
    return folder


def test_ratios_and_pixels_of_a_folder(photos: Path) -> None:
    calls: list[tuple[int, int]] = []
    figures = bench_data(
        open_source(str(photos)), rounds=2, progress=lambda done, total: calls.append((done, total))
    )
    assert figures["set"]["samples"] == 6
    assert set(figures["reading"]) == {"size", "crc", "webdataset", "folder"}
    assert figures["ratios"]["read_size_to_webdataset"] > 2
    assert figures["ratios"]["views_to_torchvision"] > 1
    assert figures["pixel_difference"] <= 0.05
    assert 0 < figures["loader"]["training_thread_ms"] < 0.05
    assert figures["loader"]["training_process_ms"] < 0.28  # what all of it once cost that thread
    assert calls[-1] == (4, 4)
    assert ("fast" in figures["views"]) == (jpeg.fast_decoder() is not None)
    json.dumps(figures)


def test_every_case_reads_every_sample(photos: Path, tmp_path: Path) -> None:
    stored = bench._stored(open_source(str(photos)))
    with bench._Reading(stored, str(tmp_path)) as cases:
        for run in cases.rounds().values():
            run()
        kept = {item.content for item in stored}
        for source in (cases._size, cases._folder):
            assert len(source) == 240
            samples = [source.read(*source.locate(i)) for i in range(len(source))]
            assert {sample.payload for sample in samples} == kept
            assert {sample.label for sample in samples} == {0}


def test_made_up_photos_are_as_large_as_photos() -> None:
    made = bench.photos(6)
    sizes = [len(item.content) for item in made]
    assert 60_000 < np.mean(sizes) < 80_000
    assert Image.open(io.BytesIO(made[0].content)).size == (500, 375)


@pytest.mark.parametrize("crop", ["random-resized", "single-try", "resize"])
def test_crops_are_equal_for_any_rule(crop: str, photos: Path) -> None:
    contents = [path.read_bytes() for path in sorted(photos.iterdir())]
    views = bench._Views(contents, AugmentSection(crop=crop), 96, "rgb")
    assert views.difference() <= 0.06
    gray = AugmentSection(crop=crop, mean=(0.5,), std=(0.5,))
    assert bench._Views(contents, gray, 96, "gray").difference() <= 0.6  # two rules of gray


def test_arrays_and_deep_images_are_refused(make_folder: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match="comparison is of rgb and gray"):
        bench_data(channels="native")
    folder = make_folder(2)
    for path in folder.iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match="none of its first samples"):
        bench_data(open_source(str(folder)))


def test_the_command_prints_a_table_and_json(
    photos: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "data", str(photos), "--rounds", "1", "--json"]) == 0
    out, err = capfd.readouterr()
    figures = json.loads(out)
    assert f"{figures['ratios']['read_crc_to_webdataset']:.2f} x" in err
    assert "torchvision and PIL" in err
    assert main(["bench", "data", str(photos / "none")]) == 2
    assert main(["bench", "data", str(photos), "optim.lr=1"]) == 2
    assert "no recipe was named" in capfd.readouterr().err


def test_a_recipe_gives_data_and_augmentation(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "data", "image/mae-tiny-fashion", "--rounds", "1", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["set"]["name"] == "embedded:fashion-mnist"
