"""A source whose values a recipe scales to nothing, or to far too much, is named at the start."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mimsuite import config
from mimsuite.data import open_source
from mimsuite.data.packing.input_range import InputRange
from mimsuite.data.packing.inspection import unused_in
from mimsuite.data.source import Source
from mimsuite.data.views import Views, views_of
from tests import needs


def warning(source: Path, recipe: str, modality: str, *keys: str) -> str | None:
    views = views_of(config.load(recipe, keys).recipe)
    return found_in(open_source(str(source), modality=modality), views)


def found_in(source: Source, views: Views) -> str | None:
    values = InputRange(views)
    unused_in(source, views, also=values.add)
    return next(iter(values.warnings(source.name)), None)


def scans(folder: Path, lowest: int) -> Path:
    nibabel = needs.module("nibabel")
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(2):
        values = rng.integers(lowest, lowest + 400, (24, 24, 24)).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), folder / f"{number}.nii.gz")
    return folder


@pytest.mark.parametrize(("lowest", "faulty"), [(-175, False), (1000, True), (-2000, True)])
def test_scans_outside_of_the_window(tmp_path: Path, lowest: int, faulty: bool) -> None:
    source, size = scans(tmp_path / "scans", lowest), "model.encoder.crop=32"
    found = warning(source, "volume/mae3d-vitb16-ct", "scans", size)
    assert ("hardly differ" in (found or "") and "augment.intensity" in (found or "")) == faulty
    assert warning(source, "volume/mae3d-vitb16-mri", "scans", size) is None  # percentiles


@pytest.mark.parametrize(
    ("scale", "words"), [(1e-4, "hardly differ"), (1.0, None), (1e3, "far too large")]
)
def test_rasters_of_another_unit(tmp_path: Path, scale: float, words: str | None) -> None:
    tifffile = needs.module("tifffile")
    values = np.random.default_rng(0).uniform(0, 4000, (6, 64, 64)) * scale
    path = tmp_path / "field.tif"
    tifffile.imwrite(
        path, values.astype(np.float32), photometric="minisblack", planarconfig="separate"
    )
    keys = ("data.bands=null", "model.encoder.frames=1", "model.encoder.image_size=32")
    found = warning(tmp_path, "bands/mae-vitb16-hls", "bands", *keys)
    if words is None:
        assert found is None
    else:
        assert found is not None
        assert words in found
        assert "augment.mean" in found


def test_images_of_few_of_16_bits(tmp_path: Path) -> None:
    bright = np.random.default_rng(0).integers(0, 1 << 16, (32, 32)).astype(np.uint16)
    keys = ("data.channels=gray16", "model.encoder.in_channels=1")
    views = views_of(config.load("image/mae-tiny-fashion", keys).recipe)
    for bits in (16, 8):
        Image.fromarray(bright >> (16 - bits)).save(tmp_path / "a.png")
        source = open_source(str(tmp_path), channels="gray16")
        assert (found_in(source, views) is None) == (bits == 16)
