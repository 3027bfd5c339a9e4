"""Rasters of many bands: GeoTIFF files as GDAL writes them, here by tifffile."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from mimsuite import config
from mimsuite.cli.main import app
from mimsuite.data import eval_loader, open_source, views_of
from mimsuite.data.bands import files
from mimsuite.data.bands.rasters import _raster, dates_in, opened_rasters
from mimsuite.data.bands.series import StoredSeries
from mimsuite.data.local_file import LocalFile
from mimsuite.data.packing.pack import PackOptions, pack
from mimsuite.data.packing.statistics import ChannelStatistics, statistics
from mimsuite.data.sources.stored import only_modality
from mimsuite.errors import CorruptSample, DataError, UserError
from tests import needs

tifffile = needs.module("tifffile")
needs.module("imagecodecs")
needs.module("pyproj")

NAMES = ("Blue", "Green", "Red", "NIR", "SWIR1", "SWIR2")
UTM_32 = (1, 1, 0, 2, 1024, 0, 1, 1, 3072, 0, 1, 32632)


def geotiff(
    path: Path,
    values: np.ndarray,
    *,
    names: tuple[str, ...] = NAMES,
    no_data: str | None = "-9999",
    planar: str = "separate",
    **more: Any,
) -> Path:
    """Write (C, H, W) with GDAL's tags, 30 m pixels, zone 32, 500 km east, 5,000 km north."""
    items = "".join(
        f'<Item name="DESCRIPTION" sample="{n}" role="description">{name}</Item>'
        for n, name in enumerate(names)
    )
    tags: list[Any] = [
        (42112, "s", 0, f"<GDALMetadata>{items}</GDALMetadata>", True),
        (33550, "d", 3, (30.0, 30.0, 0.0), True),
        (33922, "d", 6, (0, 0, 0, 500_000.0, 5_000_000.0, 0), True),
        (34735, "H", 12, UTM_32, True),
    ]
    tags += [] if no_data is None else [(42113, "s", 0, no_data, True)]
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = values if planar == "separate" else np.ascontiguousarray(values.transpose(1, 2, 0))
    settings = {"compression": "zlib", "tile": (16, 16)} | more
    tifffile.imwrite(
        path,
        pixels,
        photometric="minisblack",
        planarconfig=planar,
        extratags=tags,
        metadata=None,
        **settings,
    )
    return path


def scene(seed: int = 0, bands: int = 6, height: int = 40, width: int = 56) -> np.ndarray:
    """(C, H, W) int16; -9999 in a corner and, of the first band, in one more pixel."""
    values = np.random.default_rng(seed).integers(0, 4000, (bands, height, width)).astype(np.int16)
    values[:, :8, :8] = -9999
    values[0, 20, 20] = -9999
    return values


def recipe(*keys: str) -> Any:
    small = ["model.encoder.frames=1", "model.encoder.image_size=16", "augment.band_dropout=0"]
    return config.load("bands/mae-tiny-places", [*small, *keys]).recipe


# --- reading ---


@pytest.mark.parametrize("planar", ["separate", "contig"])
@pytest.mark.parametrize(
    "how",
    [
        {"tile": (16, 16), "compression": "zlib"},
        {"tile": (32, 16), "compression": "lzw", "predictor": 2},
        {"tile": None, "rowsperstrip": 7, "compression": "zstd"},
        {"tile": None, "compression": None},
        {"tile": (16, 16), "compression": "deflate", "bigtiff": True, "byteorder": ">"},
    ],
    ids=lambda how: f"{how.get('tile')}-{how['compression']}",
)
def test_windows_equal_the_whole(tmp_path: Path, planar: str, how: dict[str, Any]) -> None:
    values = scene()
    path = geotiff(tmp_path / "a.tif", values, planar=planar, **how)
    with opened_rasters(LocalFile(str(path))) as (raster,):
        assert raster.names == NAMES
        assert raster.no_data == -9999
        for top, left, height, width in [(0, 0, 40, 56), (5, 9, 20, 31), (39, 55, 1, 1)]:
            found, valid = raster.window(top, left, height, width)
            part = values[:, top : top + height, left : left + width]
            assert np.array_equal(valid, part != -9999)
            assert np.array_equal(found, np.where(part == -9999, 0, part))


def test_a_window_reads_only_its_tiles(tmp_path: Path) -> None:
    path = geotiff(tmp_path / "a.tif", scene(height=512, width=512), planar="contig")
    read = []

    class Counted(io.FileIO):
        def read(self, size: int = -1) -> bytes:
            found = super().read(size) or b""
            read.append(len(found))
            return found

    with tifffile.TiffFile(Counted(path)) as file:
        raster = _raster(file.pages.first, "")
        read.clear()
        raster.window(0, 0, 16, 16)
    assert 0 < sum(read) < path.stat().st_size / 50


def test_place_and_date(tmp_path: Path) -> None:
    path = geotiff(tmp_path / "HLS.S30.T32TMS.2021077T101019.tif", scene())
    with StoredSeries(LocalFile(str(path))).open() as series:
        latitude, longitude = series.place((0, 0, 2, 2))
        assert series.days([0]) == [(2021, 77)]
    assert longitude == pytest.approx(9.0, abs=1e-3)  # the zone's middle
    assert latitude == pytest.approx(45.15, abs=0.02)


def test_dates_in_names() -> None:
    assert [str(day) for day, _ in dates_in("a_20200131_B.tif")] == ["2020-01-31"]
    assert [str(day) for day, _ in dates_in("a-2020-02-29.tif")] == ["2020-02-29"]
    assert [str(day) for day, _ in dates_in("T.2020366T1.tif")] == ["2020-12-31"]
    assert dates_in("a_20201399.tif") == dates_in("tile_1234.tif") == dates_in("2021366.tif") == []


def test_not_a_number_is_no_data(tmp_path: Path) -> None:
    values = scene().astype(np.float32)
    values[3, 30, 30] = np.nan
    path = geotiff(tmp_path / "a.tif", values, no_data="nan")
    with opened_rasters(LocalFile(str(path))) as (raster,):
        found, valid = raster.window(30, 30, 1, 1)
    assert valid[:, 0, 0].tolist() == [True] * 3 + [False] + [True] * 2
    assert found[3] == 0


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "no GeoTIFF"), (b"II*\0" + bytes(40), "no GeoTIFF"), (b"nothing", "no GeoTIFF")],
)
def test_what_is_no_raster(content: bytes, words: str) -> None:
    with pytest.raises(CorruptSample, match=words), opened_rasters(content):
        pass


def test_truncated_and_changed_tiles_are_named(tmp_path: Path) -> None:
    content = bytearray(geotiff(tmp_path / "a.tif", scene()).read_bytes())
    with opened_rasters(bytes(content)) as (raster,):
        offset, size = raster.page.dataoffsets[3], raster.page.databytecounts[3]
    content[offset : offset + size] = bytes(size)
    with opened_rasters(bytes(content)) as (raster,), pytest.raises(CorruptSample, match="GeoTIFF"):
        raster.window(0, 0, 40, 56)


# --- series and sources ---


def test_a_folder_of_dates_is_one_place(tmp_path: Path) -> None:
    for number, day in enumerate(("20210601", "20210301", "20210901")):
        geotiff(tmp_path / "set" / "wheat" / "p1" / f"B_{day}.tif", scene(number))
        geotiff(tmp_path / "set" / "maize" / "p2" / f"B_{day}.tif", scene(number))
    geotiff(tmp_path / "set" / "maize" / "alone.tif", scene())
    source = open_source(str(tmp_path / "set"), modality="bands")
    assert [source.key(*source.locate(n)) for n in range(3)] == [
        "maize/alone.tif",
        "maize/p2",
        "wheat/p1",
    ]
    assert source.labels().tolist() == [0, 0, 1]
    sample = source.decode(source.read(*source.locate(2)))
    with sample.open(["nir", "1"]) as series:
        assert series.names == ["NIR", "Blue"]
        values, _ = series.window([0, 1, 2], (10, 10, 5, 5))
        assert series.days([0, 1])[1] == (2021, 152)
    assert np.array_equal(values[0, 0], scene(1)[3, 10:15, 10:15])  # March first
    assert only_modality(str(tmp_path / "set"), None) == "bands"


def test_packed_places_are_the_same(tmp_path: Path) -> None:
    for number, day in enumerate(("20210301", "20210601")):
        geotiff(tmp_path / "in" / "p" / f"B_{day}.tif", scene(number))
    packed = pack(str(tmp_path / "in"), tmp_path / "out", PackOptions(modality="bands"))
    assert packed.damaged == []
    again = pack(str(tmp_path / "out"), tmp_path / "again", PackOptions())
    assert again.modality == "bands"
    found = []
    for folder in ("in", "out", "again"):
        source = open_source(str(tmp_path / folder), modality="bands")
        sample = source.decode(source.read(*source.locate(0)))
        with sample.open() as series:
            whole = series.window([0, 1], (0, 0, *series.size))
            found.append((*whole, series.names, series.days([0, 1]), series.place((0, 0, 9, 9))))
    for other in found[1:]:
        assert np.array_equal(other[0], found[0][0])
        assert np.array_equal(other[1], found[0][1])
        assert other[2:] == found[0][2:]


def test_other_bands_are_refused_or_left_out(tmp_path: Path) -> None:
    path = geotiff(tmp_path / "a.tif", scene(bands=4), names=NAMES[:4])
    views, sample = views_of(recipe()), StoredSeries(LocalFile(str(path)))
    with pytest.raises(UserError, match=r"4 bands \(Blue, Green, Red, NIR\), the model takes 6"):
        views.require_fit(sample)
    with pytest.raises(CorruptSample, match="4 bands"):
        views.train(sample, np.random.default_rng(0))
    chosen = views_of(recipe("data.bands=[nir,thermal]", "model.encoder.in_channels=2"))
    with pytest.raises(
        UserError, match=r"no band 'thermal'; there are Blue, Green, Red, NIR.*data\.bands"
    ):
        chosen.require_fit(sample)
    with pytest.raises(UserError, match=r"1 dates, the model takes 3: set model\.encoder\.frames"):
        views_of(config.load("bands/mae-tiny-places").recipe).require_fit(
            StoredSeries(LocalFile(str(geotiff(tmp_path / "b.tif", scene()))))
        )
    with pytest.raises(UserError, match=r"data\.bands names 1 bands"):
        views_of(recipe("data.bands=[nir]")).check(open_source(str(path), modality="bands"))


# --- views ---


def test_views_hold_what_was_observed(tmp_path: Path) -> None:
    values = scene()
    geotiff(tmp_path / "x" / "a.tif", values)
    source = open_source(str(tmp_path / "x"), modality="bands")
    views = views_of(recipe("augment.mean=[0]", "augment.std=[1]", "model.encoder.image_size=48"))
    batch = views.normalizer("cpu")(next(iter(eval_loader(source, views, batch=1))))
    clip, valid = batch.views["clip"][0, :, 0], batch.views["valid"][0, :, 0]
    assert clip.shape == (6, 48, 48)
    part = torch.from_numpy(values[:, :, 4:52].astype(np.float32))
    assert not valid[:, :4].any()  # above the raster, which is only 40 high
    assert not valid[:, 44:].any()
    assert torch.equal(valid[:, 4:44].bool(), part != -9999)
    assert torch.equal(clip[:, 4:44], torch.where(part == -9999, 0.0, part))
    assert batch.views["place"][0].tolist() == pytest.approx([45.15, 9.0], abs=0.05)
    assert batch.views["dates"].isnan().all()  # neither name nor tags say it


def test_a_band_that_is_dropped_is_neither_seen_nor_scored(tmp_path: Path) -> None:
    path = geotiff(tmp_path / "a.tif", scene())
    views = views_of(recipe("augment.band_dropout=0.5", "augment.repeats=8"))
    found = views.train(StoredSeries(LocalFile(str(path))), np.random.default_rng(0))
    seen = (found["valid"] > 0).flatten(2).any(dim=2)  # (R, C)
    assert seen.any(dim=1).all()
    assert 0 < (~seen).sum() < seen.numel()


# --- statistics ---


def test_statistics_are_exact_in_one_pass(tmp_path: Path) -> None:
    every = []
    for number in range(3):
        values = scene(number)
        every.append(values)
        geotiff(tmp_path / f"{number}.tif", values)
    (tmp_path / "broken.tif").write_bytes(b"II*\0")
    found = statistics(str(tmp_path), "bands", bands=("red", "1"))
    for channel, band in enumerate((2, 0)):
        kept = np.concatenate([values[band][values[band] != -9999] for values in every])
        assert found.mean[channel] == pytest.approx(kept.mean(dtype=np.float64), rel=1e-12)
        assert found.std[channel] == pytest.approx(kept.std(dtype=np.float64), rel=1e-9)
        assert found.count[channel] == kept.size
    assert len(found.damaged) == 1
    with pytest.raises(DataError, match="no value could be read"):
        statistics(str(tmp_path / "broken.tif"), "bands")


def test_large_offsets_do_not_cancel() -> None:
    values = np.random.default_rng(0).normal(1e8, 1.0, (1, 1000))
    found = ChannelStatistics(["a"])
    for part in np.array_split(values, 7, axis=1):
        found.add(part)
    assert found.std[0] == pytest.approx(values.std(), rel=1e-6)


def test_the_command_prints_keys(tmp_path: Path) -> None:
    geotiff(tmp_path / "a.tif", scene())
    done = CliRunner().invoke(app, ["data", "stats", str(tmp_path)], catch_exceptions=False)
    keys = [line for line in done.stdout.splitlines() if line.startswith("augment.")]
    made = config.load("bands/mae-tiny-places", keys).recipe
    assert len(made.augment.mean) == len(made.augment.std) == 6
    asked = ["data", "stats", "embedded:fashion-mnist", "--channels", "gray", "--json"]
    told = json.loads(CliRunner().invoke(app, asked, catch_exceptions=False).stdout)
    assert told["mean"] == pytest.approx([0.287], abs=1e-3)
    assert told["std"] == pytest.approx([0.353], abs=2e-3)


def test_facts_and_picture(tmp_path: Path) -> None:
    data = LocalFile(str(geotiff(tmp_path / "a_20210301.tif", scene())))
    facts = files.facts(data)
    assert facts["band names"] == ", ".join(NAMES)
    assert (facts["height"], facts["width"], facts["dates"], facts["year"]) == (40, 56, 1, 2021)
    shown = files.picture(data)
    assert (shown[:6, :6] == 128).all()  # no data is grey
    assert shown.std() > 10


@pytest.mark.parametrize("bands", ["[3,1]", "['3',1]"])
def test_bands_without_names_are_chosen_by_number(tmp_path: Path, bands: str) -> None:
    chosen = recipe(f"data.bands={bands}", "model.encoder.in_channels=2")
    assert chosen.data.bands == ("3", "1")
    path = geotiff(tmp_path / "a.tif", scene())
    views_of(chosen).require_fit(StoredSeries(LocalFile(str(path))))
