"""Images as people have them: endings, deep and many-banded files, values that are none."""

from __future__ import annotations

import io
import json
import struct
import sys
import tarfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mimsuite.cli.main import main
from mimsuite.data import open_source
from mimsuite.data.damage import CorruptSample
from mimsuite.data.image import kinds as image_kinds
from mimsuite.data.image.decode import ImageDecoder
from mimsuite.data.image.encode import encode, extension_of, shrink
from mimsuite.data.modalities import payload_extensions
from mimsuite.data.unused import noticing
from mimsuite.errors import DataError
from tests import needs

HERE = Path(__file__).parent
PHONE, DEEP, FIVE, NO_DATA = (
    HERE / name for name in ("folder-phone", "tiff-deep", "tiff-five-bands", "array-nodata")
)
RNG = np.random.default_rng(0)
LEVELS = RNG.integers(0, 65536, (24, 20, 13), dtype=np.uint16)
CHANNELS = ("rgb", "gray", "rgba", "gray16", "native")


@pytest.fixture(autouse=True)
def _libraries() -> None:
    for name in ("tifffile", "imagecodecs", "pillow_heif"):
        needs.module(name)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIMSUITE_CACHE", str(tmp_path_factory.mktemp("cache")))


def tifffile() -> Any:
    return needs.module("tifffile")


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def tif(pixels: np.ndarray, **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile().imwrite(stream, pixels, **options)
    return stream.getvalue()


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def png16(pixels: np.ndarray) -> bytes:
    """(H, W, 2 to 4) uint16 as PNG; every line with another filter."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    height, width, count = pixels.shape
    lines = pixels.astype(">u2").view(np.uint8).reshape(height, -1).astype(int)
    step, body = 2 * count, b""
    for row in range(height):
        left = np.concatenate([np.zeros(step, int), lines[row, :-step]])
        above = lines[row - 1] if row else np.zeros_like(left)
        kind = row % 3
        predicted = (np.zeros_like(left), left, above)[kind]
        body += bytes([kind]) + ((lines[row] - predicted) % 256).astype(np.uint8).tobytes()
    colour = {2: 4, 3: 2, 4: 6}[count]
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(body)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*parts) for parts in chunks)


def native(data: bytes) -> np.ndarray:
    """(H, W, C)."""
    return ImageDecoder("native")(data).permute(1, 2, 0).numpy()


def noticed(data: bytes, channels: Any) -> list[str]:
    with noticing() as found:
        ImageDecoder(channels)(data)
    return found


@pytest.fixture
def photo() -> Image.Image:
    y, x = np.mgrid[0:24, 0:32] * 7
    return Image.fromarray(np.stack([x, y, (x + y) // 2], -1).astype(np.uint8))


# --- endings ---


def inspected(path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["data", "inspect", str(path), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)["splits"]["train"]
    return found


def test_a_phones_folder(capsys: pytest.CaptureFixture[str]) -> None:
    found = inspected(PHONE, capsys)
    assert (found["samples"], found["corrupt"], found["unused"]) == (10, [], [])


def test_a_phones_folder_without_the_library(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(image_kinds, "has_heif", lambda: False)
    found = inspected(PHONE, capsys)
    what = ".heic files, which `pip install 'mimsuite[heif]'` reads"
    assert (found["samples"], found["corrupt"]) == (6, [])
    assert [(kind["what"], kind["count"]) for kind in found["unused"]] == [(what, 4)]
    words = ["pretrain", "image/mae-tiny-fashion", "--smoke", "--data", str(PHONE)]
    keys = ["--out", str(tmp_path / "run"), "train.global_batch=2", "data.lanes=1"]
    assert main([*words, *keys]) == 0
    assert f"{what} (4): IMG_0000.HEIC" in capsys.readouterr().err
    with pytest.raises(CorruptSample, match=r"a HEIC image, which `pip install 'mimsuite\[heif\]'"):
        ImageDecoder()((PHONE / "IMG_0000.HEIC").read_bytes())
    monkeypatch.setattr(image_kinds, "has_avif", lambda: False)
    assert len(open_source(str(PHONE))) == 4
    with pytest.raises(CorruptSample, match="an AVIF image"):
        ImageDecoder()((PHONE / "pic0.avif").read_bytes())


def test_shards_and_lists_hold_them_too(tmp_path: Path, photo: Image.Image) -> None:
    files = sorted(PHONE.iterdir())
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for file in files:
            archive.add(file, file.name)
    source = open_source(str(tmp_path / "a.tar"))
    assert len(source) == 10
    for position in range(10):
        assert source.decode(source.read(*source.locate(position))).shape == (3, 32, 48)
    for name in ("x.jpe", "y.pjpeg", "z.jfif"):
        (tmp_path / name).write_bytes(encoded(photo, "JPEG"))
    listed = "".join(f"{file}\n" for file in [*files, "x.jpe", "y.pjpeg", "z.jfif"])
    (tmp_path / "all.txt").write_text(listed)
    assert len(open_source(str(tmp_path / "all.txt"))) == 13
    assert len(open_source(str(tmp_path / "a.tar"))) == 10
    assert {"jfif", "jpe", "avif", "heic", "heif"} <= set(payload_extensions())


def test_the_content_decides(photo: Image.Image) -> None:
    """What is named .jpg and is none."""
    for form, options in (("AVIF", {"quality": 95}), ("HEIF", {"quality": 95}), ("WEBP", {})):
        if form == "HEIF":
            image_kinds._register_heif()
        data = encoded(photo, form, **options)
        assert extension_of(data) == {"AVIF": "avif", "HEIF": "heic", "WEBP": "webp"}[form]
        for channels in CHANNELS:
            assert ImageDecoder(channels)(data).shape[1:] == (24, 32)
        far = np.abs(native(data).astype(int) - np.asarray(photo))
        assert far.mean() < 6
    for number, data in enumerate(
        (b"<html>", b"\0\0\0\x1cftypmp42" + bytes(60), b"8BPS" + bytes(60))
    ):
        with pytest.raises(CorruptSample, match="no image of JPEG"):
            ImageDecoder()(data)
        assert image_kinds.kind_of(data) is None, number


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_avif_stands_upright(orientation: int, photo: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = ImageDecoder()(encoded(photo, "AVIF", exif=exif, quality=95)).permute(1, 2, 0).numpy()
    turns = {1: 0, 3: 2, 6: -1, 8: 1}[orientation]
    expected = np.rot90(np.asarray(photo), turns).astype(int)
    assert upright.shape == expected.shape
    assert np.abs(upright - expected).mean() < 6


def test_files_without_an_ending(tmp_path: Path, photo: Image.Image) -> None:
    for name, form in (("3f2a", "PNG"), ("cat/77ab", "JPEG"), ("cat/90cd", "AVIF")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(encoded(photo, form))
    (tmp_path / "LICENSE").write_text("free")
    source = open_source(str(tmp_path))
    assert [source.key(shard, 0) for shard in range(3)] == ["3f2a", "cat/77ab", "cat/90cd"]
    assert source.unused.lines() == ["files without an ending (1): LICENSE"]
    (tmp_path / "one.png").write_bytes(encoded(photo, "PNG"))
    source = open_source(str(tmp_path))
    assert len(source) == 1
    assert source.unused.lines()[0].startswith("files without an ending (4): 3f2a")


def test_arrays_are_counted_where_they_are_not_read(tmp_path: Path, photo: Image.Image) -> None:
    (tmp_path / "a.npy").write_bytes(npy(np.zeros((8, 8), np.uint8)))
    photo.save(tmp_path / "b.png")
    source = open_source(str(tmp_path))
    assert source.unused.lines() == [".npy files, which data.channels=native reads (1): a.npy"]
    assert len(open_source(str(tmp_path), channels="native")) == 2


# --- 16 bits and more ---


def test_deep_tiff() -> None:
    data = (DEEP / "rgb16.tif").read_bytes()
    image = ImageDecoder("native")(data)
    assert (image.shape, image.dtype) == ((3, 32, 48), torch.float32)
    assert 0 <= image.min() < image.max() <= 1
    assert len(image.unique()) > 256
    expected = tifffile().imread(DEEP / "rgb16.tif").astype(np.float32) / np.float32(65535)
    assert (image.permute(1, 2, 0).numpy() == expected).all()
    assert noticed(data, "native") == []
    assert noticed(data, "rgb") == [
        "low bits of images of 16 bits, which data.channels=native keeps"
    ]
    for channels in CHANNELS:
        with pytest.raises(CorruptSample, match=r"^int16 pixels; known are uint8, uint16, float32"):
            ImageDecoder(channels)((DEEP / "i16.tif").read_bytes())


DEEP_FILES = {
    "planar lzw": (3, {"photometric": "rgb", "planarconfig": "separate", "compression": "lzw"}),
    "big-endian BigTIFF": (3, {"photometric": "rgb", "bigtiff": True, "byteorder": ">"}),
    "alpha, predictor": (
        4,
        {"photometric": "rgb", "extrasamples": ["unassalpha"], "compression": "deflate",
         "predictor": True},
    ),
    "tiles": (3, {"photometric": "rgb", "tile": (16, 16), "compression": "zstd"}),
}  # fmt: skip


@pytest.mark.parametrize("name", DEEP_FILES)
def test_all_levels_of_tiff(name: str) -> None:
    count, options = DEEP_FILES[name]
    pixels = LEVELS[:, :, :count]
    planar = options.get("planarconfig") == "separate"
    data = tif(np.moveaxis(pixels, -1, 0) if planar else pixels, **options)
    assert (native(data) == pixels.astype(np.float32) / np.float32(65535)).all()
    assert ImageDecoder()(data).shape == (3, 24, 20)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_all_levels_of_png(count: int) -> None:
    data = png16(LEVELS[:, :, :count])
    assert (native(data) == LEVELS[:, :, :count].astype(np.float32) / np.float32(65535)).all()
    with pytest.raises(CorruptSample):
        ImageDecoder("native")(data[: len(data) // 2])


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "uint32", "float64"])
@pytest.mark.parametrize("count", [1, 3])
def test_other_types_are_named(dtype: str, count: int) -> None:
    pixels = (RNG.random((8, 9, count)) * 99).astype(dtype)
    for channels in CHANNELS:
        with pytest.raises(CorruptSample, match=dtype):
            ImageDecoder(channels)(tif(pixels if count == 3 else pixels[:, :, 0]))
    with pytest.raises(CorruptSample, match=rf"\.npy of {dtype} pixels; known are"):
        ImageDecoder("native")(npy(pixels))


def test_float_tiff_is_kept() -> None:
    pixels = RNG.normal(300, 5, (8, 9, 3)).astype(np.float32)
    assert (native(tif(pixels, photometric="rgb")) == pixels).all()
    assert (native(tif(pixels[:, :, 0]))[:, :, 0] == pixels[:, :, 0]).all()
    for data in (tif(pixels, photometric="rgb"), tif(pixels[:, :, 0])):
        with pytest.raises(CorruptSample, match=r"float32.*, which data\.channels=native reads"):
            ImageDecoder("gray16")(data)


def test_high_is_bright_where_white_is_zero() -> None:
    for dtype in (np.uint8, np.uint16):
        dark = (LEVELS[:, :, 0] >> (8 if dtype == np.uint8 else 0)).astype(dtype)
        data = tif(dark, photometric="miniswhite")
        expected = (np.iinfo(dtype).max - dark)[:, :, None]
        factor = np.float32(1 if dtype == np.uint8 else 65535)
        assert (native(data) == expected.astype(np.float32) / factor).all()
        gray = ImageDecoder("gray")(data)[0].numpy()
        assert np.abs(gray - expected[:, :, 0] / (1 if dtype == np.uint8 else 257)).max() <= 0.5


# --- bands ---


def test_five_bands() -> None:
    for name in ("s0.tif", "s1.tif"):
        data = (FIVE / name).read_bytes()
        assert (native(data) == tifffile().imread(FIVE / name)).all()
        assert native(data).shape == (32, 32, 5)
        assert ImageDecoder("rgb")(data).shape == (3, 32, 32)
        assert noticed(data, "rgb") == ["further bands of a TIFF, which data.channels=native keeps"]
        assert noticed(data, "native") == []


@pytest.mark.parametrize("compression", [None, "lzw", "deflate"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize(("count", "planar"), [(13, True), (2, False), (6, False), (4, True)])
def test_any_number_of_bands(compression: str | None, dtype: str, count: int, planar: bool) -> None:
    pixels = LEVELS[:, :, :count]
    pixels = (pixels >> 8).astype("uint8") if dtype == "uint8" else pixels.astype(dtype)
    stored = np.moveaxis(pixels, -1, 0) if planar else pixels
    data = tif(
        stored,
        photometric="minisblack",
        planarconfig="separate" if planar else "contig",
        compression=compression,
    )
    expected = pixels.astype(np.float32) / np.float32(65535) if dtype == "uint16" else pixels
    assert (native(data) == expected).all()
    assert extension_of(data) == "tif"


def test_bands_without_colour_are_no_picture() -> None:
    stored = np.moveaxis(LEVELS, -1, 0)
    for compression in ("lzw", None):
        options = {"planarconfig": "separate", "compression": compression}
        data = tif(stored, photometric="minisblack", **options)
        for channels in ("rgb", "gray", "rgba", "gray16"):
            with pytest.raises(
                CorruptSample, match=r"13 bands of uint16, which data\.channels=nat"
            ):
                ImageDecoder(channels)(data)
    with pytest.raises(CorruptSample, match="20 x 24 pixels are more than") as fault:
        ImageDecoder("native", max_pixels=479)(data)
    assert fault.value.kind == "too-large"
    with pytest.raises(CorruptSample, match="6240 values in all bands"):
        ImageDecoder("native", max_pixels=480)(data)


def test_bands_of_infrared_are_no_alpha(photo: Image.Image) -> None:
    pixels = np.concatenate([np.asarray(photo), np.zeros((24, 32, 1), np.uint8)], -1)
    data = tif(pixels, photometric="rgb", extrasamples=["unspecified"])
    assert (native(data) == pixels).all()
    assert (ImageDecoder()(data).permute(1, 2, 0).numpy() == np.asarray(photo)).all()
    assert noticed(data, "rgb") == ["further bands of a TIFF, which data.channels=native keeps"]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_bands_stand_upright(orientation: int, photo: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    expected = native(encoded(photo, "PNG", exif=exif))
    five = np.concatenate([np.asarray(photo)] * 2, -1)[:, :, :5]
    options = {"photometric": "rgb", "extrasamples": [0, 0], "metadata": None}
    data = tif(five, extratags=[(274, "H", 1, orientation, True)], **options)
    assert (native(data)[:, :, :3] == expected).all()


def test_without_the_library_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(CorruptSample, match=r"pip install 'mimsuite\[geo\]'"):
        ImageDecoder("native")((FIVE / "s0.tif").read_bytes())
    assert ImageDecoder("rgb")((FIVE / "s0.tif").read_bytes()).shape == (3, 32, 32)


def test_damaged_bands_are_corrupt() -> None:
    data = tif(LEVELS[:, :, :5], photometric="rgb", extrasamples=[0, 0], compression="deflate")
    rng = np.random.default_rng(3)
    for _ in range(60):
        damaged = bytearray(data)
        damaged[rng.integers(len(data))] = rng.integers(256)
        with suppress(CorruptSample):  # nothing else
            ImageDecoder("native", max_pixels=10**5)(
                bytes(damaged[: rng.integers(40, len(data) + 1)])
            )


# --- colour spaces ---


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "LAB"])
def test_colours_are_right_in_every_mode(mode: str, photo: Image.Image) -> None:
    if mode == "LAB":
        from PIL import ImageCms

        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        stored = ImageCms.applyTransform(photo, ImageCms.buildTransform(srgb, lab, "RGB", "LAB"))
    else:
        stored = photo.convert(mode)
    data = encoded(stored, "TIFF")
    for channels in CHANNELS:
        image = ImageDecoder(channels)(data).float()
        if channels == "gray16":
            image = image * 255
        expected = photo.convert({"native": "RGB", "rgb": "RGB", "rgba": "RGBA"}.get(channels, "L"))
        far = np.abs(image.permute(1, 2, 0).squeeze(2).numpy() - np.asarray(expected, float))
        assert far.mean() < 3, channels


# --- what is dropped is noticed ---


def frames(photo: Image.Image, form: str) -> bytes:
    more = [photo.rotate(90), photo.rotate(180)]
    return encoded(photo, form, save_all=True, append_images=more)


def test_further_frames_are_noticed(photo: Image.Image) -> None:
    for form in ("GIF", "WEBP", "PNG", "AVIF"):
        assert noticed(frames(photo, form), "rgb") == ["frames after the first"], form
        assert noticed(encoded(photo, form), "rgb") == [], form
    assert noticed(frames(photo, "TIFF"), "rgb") == ["pages of a TIFF after the first"]
    five = [np.zeros((8, 8, 5), np.uint8)] * 2
    stream = io.BytesIO()
    with tifffile().TiffWriter(stream) as writer:
        for page in five:
            writer.write(page, photometric="rgb", extrasamples=[0, 0])
    assert noticed(stream.getvalue(), "native") == ["pages of a TIFF after the first"]


def test_smaller_copies_are_no_pages(photo: Image.Image) -> None:
    for count in (3, 5):
        stream, pixels = io.BytesIO(), np.zeros((32, 32, count), np.uint8)
        extra = {"extrasamples": [0, 0]} if count == 5 else {}
        with tifffile().TiffWriter(stream) as writer:
            writer.write(pixels, photometric="rgb", **extra)
            writer.write(pixels[::2, ::2], photometric="rgb", subfiletype=1, **extra)
        assert noticed(stream.getvalue(), "native") == []


def test_transparency_is_noticed(photo: Image.Image) -> None:
    clear, opaque = photo.convert("RGBA"), photo.convert("RGBA")
    clear.putalpha(128)
    for form in ("PNG", "WEBP", "TIFF"):
        assert noticed(encoded(clear, form), "rgb") == ["transparent pixels, laid on white"]
        assert noticed(encoded(opaque, form), "rgb") == []
        assert noticed(encoded(clear, form), "rgba") == []


def test_low_bits_are_noticed() -> None:
    gray, colour = encoded(Image.fromarray(LEVELS[:, :, 0]), "PNG"), png16(LEVELS[:, :, :3])
    for channels in ("rgb", "gray", "rgba"):
        for data in (gray, colour, tif(LEVELS[:, :, 0])):
            (what,) = noticed(data, channels)
            assert what.startswith("low bits of images of 16 bits")
    assert noticed(gray, "gray16") == noticed(gray, "native") == noticed(colour, "native") == []


def test_no_data_tags_are_noticed() -> None:
    tag = [(42113, "s", 0, "-9999", True)]
    for pixels in (np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.float32), LEVELS[:, :, :5]):
        colour = "rgb" if pixels.ndim == 3 else "minisblack"
        data = tif(pixels, extratags=tag, metadata=None, photometric=colour)
        (what,) = noticed(data, "native")
        assert what.startswith("no-data tags (GDAL)")


# --- values that are none ---


@pytest.mark.parametrize("packed", [False, True])
def test_verify_names_no_data_tags(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], packed: bool
) -> None:
    folder = tmp_path / "tiles"
    folder.mkdir()
    tag = [(42113, "s", 0, "-9999", True)]
    data = tif(LEVELS[:, :, :5], extratags=tag, metadata=None, photometric="minisblack")
    (folder / "a.tif").write_bytes(data)
    source = folder
    if packed:
        source = tmp_path / "shards"
        assert main(["data", "pack", str(folder), str(source), "--modality", "image"]) == 0
        capsys.readouterr()
    assert main(["data", "verify", str(source), "--modality", "image"]) == 0
    said = capsys.readouterr().err
    assert "no-data tags (GDAL); such values are read as pixels (1): " in said


def test_no_data_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "verify", str(NO_DATA)]) == 3
    said = capsys.readouterr().out
    assert [key in said for key in ("2.npy: not-finite", "5.npy: not-finite")] == [True, True]
    assert said.count("not-finite") == 2
    run, table = tmp_path / "run", tmp_path / "f.safetensors"
    words = ["pretrain", "image/mae-tiny-fashion", "--smoke", "--data", str(NO_DATA)]
    keys = ["data.channels=native", "train.global_batch=4", "data.lanes=1"]
    assert main([*words, *keys, "--out", str(run)]) == 0
    assert "2 corrupt samples were replaced" in capsys.readouterr().err
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    bad = {event["key"]: event["kind"] for event in events if event["event"] == "bad_sample"}
    assert bad == {"2.npy": "not-finite", "5.npy": "not-finite"}
    assert not any(event["event"] == "skip" for event in events)
    assert main(["features", str(run), "--data", str(NO_DATA), "--out", str(table)]) == 0
    assert "left out 2.npy" in capsys.readouterr().err
    from safetensors.torch import load_file

    features = load_file(table)["features"]
    assert features.shape[0] == 6
    assert features.isfinite().all()
    keys = json.loads(table.with_suffix(".json").read_text())["keys"]
    assert keys == ["0.npy", "1.npy", "3.npy", "4.npy", "6.npy", "7.npy"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_none_are_corrupt(value: float) -> None:
    pixels = RNG.random((24, 20, 5)).astype(np.float32)
    pixels[3, 4, 1] = value
    files = npy(pixels), npy(pixels[:, :, 1]), tif(pixels[:, :, 1]), tif(pixels, photometric="rgb")
    for data in files:
        with pytest.raises(CorruptSample, match=r"1 of [0-9]+ values are NaN or infinite") as fault:
            ImageDecoder("native")(data)
        assert fault.value.kind == "not-finite"


def test_features_that_are_none_are_refused() -> None:
    from mimsuite.evaluate.features import FeatureSet, _check_finite

    table = torch.zeros(4, 3)
    _check_finite(FeatureSet({"mean@2": table}, None, ["a", "b", "c", "d"]))
    table[2, 1] = torch.nan
    with pytest.raises(DataError, match=r"mean@2 of 1 of 4 samples are NaN .* the first is c"):
        _check_finite(FeatureSet({"mean@2": table}, None, ["a", "b", "c", "d"]))


# --- arrays ---


def test_channels_first_arrays_are_refused() -> None:
    for shape in ((3, 32, 32), (1, 28, 28), (13, 64, 48)):
        with pytest.raises(CorruptSample, match=r"looks like \(C, H, W\).*np\.moveaxis"):
            ImageDecoder("native")(npy(np.zeros(shape, np.uint8)))
    for shape in ((32, 32, 3), (9, 9, 200), (32, 32, 224), (4, 300, 3)):
        assert native(npy(np.zeros(shape, np.uint8))).shape == shape


def test_pixels_are_the_callers_own(photo: Image.Image) -> None:
    files = [encoded(photo, form) for form in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")]
    files += [encoded(photo.convert("L"), form) for form in ("JPEG", "PNG")]
    files += [png16(LEVELS[:, :, :3]), (FIVE / "s0.tif").read_bytes()]
    files += [(PHONE / "IMG_0000.HEIC").read_bytes()]
    arrays = [np.asarray(photo), np.asarray(photo.convert("L"))]
    for channels in CHANNELS:
        for stored in [*files, *arrays]:
            image = ImageDecoder(channels)(stored)
            before = image.clone()
            image[0] += 1
            assert torch.equal(image[1:], before[1:])
            assert torch.equal(ImageDecoder(channels)(stored), before)


def test_packing_keeps_values_beyond_one() -> None:
    image = torch.from_numpy(RNG.normal(300, 50, (2, 40, 30)).astype(np.float32))
    extension, data = encode(image, quality=None, jpeg=False)
    assert extension == "npy"
    assert torch.equal(ImageDecoder("native")(data), image)
    small = shrink(image, 15)
    assert image.min() <= small.min() < small.max() <= image.max()
    assert abs(float(small.mean() - image.mean())) < 10
