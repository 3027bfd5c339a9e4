"""Decoding: an allow-list, limits before work, and one layout of channels."""

from __future__ import annotations

import io
import random
import struct
import sys
import zlib
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from mimsuite.data.damage import CorruptSample
from mimsuite.data.image import jpeg
from mimsuite.data.image.decode import ImageDecoder, _webp_size, extensions
from tests import needs

FORMS = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def pixels(image: torch.Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).numpy()


@pytest.fixture
def photo() -> Image.Image:
    """Smooth, so that JPEG keeps it nearly as it is."""
    y, x = np.mgrid[0:48, 0:64] / 64
    waves = np.stack([np.sin(5 * x), np.cos(4 * y), np.sin(3 * (x + y))], axis=-1)
    return Image.fromarray(((waves + 1) * 127).astype(np.uint8))


@pytest.mark.parametrize("form", FORMS)
def test_every_format_gives_rgb_bytes(form: str, photo: Image.Image) -> None:
    data = encoded(photo, form)
    image = ImageDecoder()(data)
    assert (image.dtype, image.shape) == (torch.uint8, (3, 48, 64))
    reference = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert np.abs(pixels(image) - reference).max() <= (2 if form == "JPEG" else 0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("channels", ["rgb", "gray", "rgba", "gray16"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_colour_and_gray_convert(form: str, channels: str, mode: str, photo: Image.Image) -> None:
    image = ImageDecoder(channels)(encoded(photo.convert(mode), form))
    assert image.shape == ({"rgb": 3, "rgba": 4}.get(channels, 1), 48, 64)
    assert image.dtype == (torch.float32 if channels == "gray16" else torch.uint8)
    gray = np.asarray(photo.convert("L")).astype(float)
    values = pixels(image.float())[..., :3].mean(-1) * (255 if channels == "gray16" else 1)
    if mode == "L" or channels.startswith("gray"):
        assert np.abs(values - gray).mean() < (5 if form == "GIF" else 2.5)  # its palette
    if channels == "rgba":
        assert (image[3] == 255).all()


def test_transparent_pixels_lie_on_white() -> None:
    rgba = np.zeros((2, 3, 4), np.uint8)
    rgba[0, 0] = (200, 0, 0, 255)
    rgba[0, 1] = (0, 0, 0, 128)
    image = pixels(ImageDecoder()(encoded(Image.fromarray(rgba))))
    assert image[0].tolist() == [[200, 0, 0], [127, 127, 127], [255, 255, 255]]
    gray = pixels(ImageDecoder("gray")(encoded(Image.fromarray(rgba).convert("LA"))))
    assert gray[1].tolist() == [[255]] * 3
    kept = pixels(ImageDecoder("rgba")(encoded(Image.fromarray(rgba))))
    assert kept.tolist() == rgba.tolist()


def test_palette_with_and_without_transparency(photo: Image.Image) -> None:
    palette = photo.quantize(8)
    expected = np.asarray(palette.convert("RGB"))
    assert (pixels(ImageDecoder()(encoded(palette))) == expected).all()
    assert ImageDecoder("native")(encoded(palette)).shape[0] == 3
    palette.info["transparency"] = 0
    data = encoded(palette, transparency=0)
    assert ImageDecoder("native")(data).shape[0] == 4
    hidden = np.asarray(palette) == 0
    assert (pixels(ImageDecoder()(data))[hidden] == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_images_stand_upright(orientation: int, form: str, photo: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(photo, form, exif=exif)
    reference = ImageOps.exif_transpose(Image.open(io.BytesIO(data)).convert("RGB"))
    image = pixels(ImageDecoder()(data)).astype(int)
    assert image.shape == (*reference.size[::-1], 3)
    assert np.abs(image - np.asarray(reference)).mean() < 1.5


def test_16_bits() -> None:
    values = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    data = encoded(Image.fromarray(values))
    deep = ImageDecoder("gray16")(data)
    assert torch.equal(deep[0], torch.from_numpy(values.astype(np.float32) / 65535))
    assert torch.equal(ImageDecoder("native")(data), deep)
    flat = ImageDecoder("rgb")(data)
    assert np.abs(flat.numpy() - values / 257).max() <= 0.5
    floats = encoded(Image.fromarray(values.astype(np.float32)), "TIFF")
    with pytest.raises(CorruptSample, match=r"float32 pixels, which data\.channels=native reads"):
        ImageDecoder("rgb")(floats)
    assert (pixels(ImageDecoder("native")(floats))[..., 0] == values).all()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", ">u2"])
@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 7)])
def test_arrays(dtype: str, shape: tuple[int, ...]) -> None:
    stored = (np.random.default_rng(0).random(shape) * 200).astype(dtype)
    stream = io.BytesIO()
    np.save(stream, stored)
    image = ImageDecoder("native")(stream.getvalue())
    expected = stored.astype(np.float32) / 65535 if stored.dtype.itemsize == 2 else stored
    assert (pixels(image) == expected.reshape(5, 6, -1)).all()
    with pytest.raises(CorruptSample, match=r"needs data\.channels=native"):
        ImageDecoder("rgb")(stream.getvalue())
    assert "npy" in extensions("native")
    assert "npy" not in extensions("rgb")


def test_arrays_in_memory_are_what_their_image_file_is() -> None:
    gray = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for stored in (gray, np.stack([gray, gray[::-1], gray + 9], axis=-1)):
        for channels in ("rgb", "gray", "rgba", "gray16", "native"):
            decoder = ImageDecoder(channels)
            image = decoder(stored)
            assert torch.equal(image, decoder(encoded(Image.fromarray(stored))))
            image[..., 0, 0] = 1  # it is the caller's own
            assert stored[0, 0].max() != 1


# --- JPEG: one header, two decoders ---


@pytest.fixture
def _simplejpeg() -> None:
    needs.module("simplejpeg")


needs_simplejpeg = pytest.mark.usefixtures("_simplejpeg")


def jpegs(photo: Image.Image) -> dict[str, bytes]:
    """Kinds of JPEG that are decoded without PIL."""
    noise = np.random.default_rng(1).integers(0, 256, (61, 83, 3), dtype=np.uint8)
    made = {"gray": encoded(photo.convert("L"), "JPEG"), "photo": encoded(photo, "JPEG")}
    for number, subsampling in enumerate(("4:4:4", "4:2:2", "4:2:0", "4:1:1")):
        for width, height in ((83, 61), (1, 1), (2, 17), (16, 8)):
            image = Image.fromarray(noise[:height, :width])
            options = {"quality": 70 + number * 8, "subsampling": subsampling}
            name = f"{subsampling} {width}x{height}"
            made[name] = encoded(image, "JPEG", **options)
            made[f"{name} progressive"] = encoded(image, "JPEG", progressive=True, **options)
    image = Image.fromarray(noise)
    made["rgb in rgb"] = encoded(image, "JPEG", keep_rgb=True)
    made["restarts"] = encoded(image, "JPEG", restart_marker_blocks=3)
    made["own tables"] = encoded(image, "JPEG", optimize=True)
    made["metadata"] = encoded(image, "JPEG", icc_profile=b"x" * 70000, comment=b"\xff\xd9" * 50)
    return made


@needs_simplejpeg
@pytest.mark.parametrize("channels", ["rgb", "gray", "native"])
def test_the_faster_decoder_gives_the_same_pixels(channels: str, photo: Image.Image) -> None:
    assert jpeg.fast_decoder() is not None
    for name, data in jpegs(photo).items():
        fast, usual = ImageDecoder(channels)(data), ImageDecoder(channels, fast=False)(data)
        assert torch.equal(fast, usual), name


def test_header_says_what_pil_says(photo: Image.Image) -> None:
    for name, data in jpegs(photo).items():
        header, image = jpeg.read_header(data), Image.open(io.BytesIO(data))
        assert header is not None, name
        assert (header.width, header.height) == image.size
        assert header.channels == len(image.getbands())
        assert header.exif == ("exif" in image.info)
        for size in range(0, min(len(data), 700)):
            jpeg.read_header(data[:size])  # whatever is cut off, it raises nothing


def test_pixels_of_a_jpeg_are_those_of_pil(photo: Image.Image) -> None:
    for name, data in jpegs(photo).items():
        image = Image.open(io.BytesIO(data))
        colour = pixels(ImageDecoder()(data)).astype(int) - np.asarray(image.convert("RGB"))
        assert np.abs(colour).mean() <= 0.05, name
        if not name.startswith(("4:", "rgb", "restarts", "own", "metadata")):  # noise is clipped
            gray = pixels(ImageDecoder("gray")(data))[..., 0].astype(int) - np.asarray(
                image.convert("L")
            )
            assert np.abs(gray).mean() <= 0.05, name


def test_other_jpegs_go_to_pil(photo: Image.Image) -> None:
    cmyk = encoded(photo.convert("CMYK"), "JPEG")
    assert jpeg.read_header(cmyk) is None
    assert ImageDecoder()(cmyk).shape == (3, 48, 64)
    data = encoded(photo, "JPEG")
    frame = data.index(b"\xff\xc0")
    twelve_bits = data[: frame + 4] + b"\x0c" + data[frame + 5 :]
    no_lines = data[: frame + 5] + b"\0\0" + data[frame + 7 :]
    twice = data[:frame] + data[frame : frame + 19] + data[frame:]
    for odd in (twelve_bits, no_lines, twice, data[:frame], b"\xff\xd8", b"\xff\xd8\xff"):
        assert jpeg.read_header(odd) is None
        with pytest.raises(CorruptSample):
            ImageDecoder()(odd)


def test_the_size_of_a_jpeg_is_limited_before_it_is_decoded(
    photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jpeg, "decode", None)  # it must not come so far
    data = bytearray(encoded(photo, "JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 65000, 65000)
    with pytest.raises(CorruptSample, match="65000 x 65000 pixels") as fault:
        ImageDecoder()(bytes(data))
    assert fault.value.kind == "too-large"


@needs_simplejpeg
def test_what_the_faster_decoder_refuses_the_usual_one_decides(photo: Image.Image) -> None:
    data = encoded(photo, "JPEG")
    junk = data[:-2] + b"\x00" * 40 + data[-2:]  # a warning of libjpeg's, and no more
    simplejpeg = needs.module("simplejpeg")
    with pytest.raises(ValueError, match="extraneous"):
        simplejpeg.decode_jpeg(junk)
    assert torch.equal(ImageDecoder()(junk), ImageDecoder(fast=False)(junk))
    with pytest.raises(CorruptSample):
        ImageDecoder()(data[: len(data) // 2])


def test_a_decoder_with_other_pixels_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    other = SimpleNamespace(decode_jpeg=lambda data, channels: np.zeros((37, 45, 3), np.uint8))
    monkeypatch.setitem(sys.modules, "simplejpeg", other)
    assert jpeg.fast_decoder.__wrapped__() is None
    monkeypatch.setitem(sys.modules, "simplejpeg", None)  # not installed
    assert jpeg.fast_decoder.__wrapped__() is None


# --- hostile ---


class Trap:
    """Unpickling it raises the alarm."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return eval, ("1/0",)


def test_object_arrays_are_refused() -> None:
    stream = io.BytesIO()
    np.save(stream, np.array([Trap()], dtype=object), allow_pickle=True)
    with pytest.raises(CorruptSample, match=r"\.npy of object"):
        ImageDecoder("native")(stream.getvalue())


def test_lying_array_header_is_refused() -> None:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "|u1", "fortran_order": False, "shape": (1000, 1000, 10**9)}
    )
    with pytest.raises(CorruptSample, match="header claims"):
        ImageDecoder("native")(stream.getvalue() + b"x" * 64)
    with pytest.raises(CorruptSample, match=r"no \.npy array"):
        ImageDecoder("native")(stream.getvalue()[:9])


def png_claiming(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 1000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [8001, 30000, 2**31 - 1])
def test_bombs_are_refused_before_decoding(side: int) -> None:
    with pytest.raises(CorruptSample, match=r"more than data\.max_pixels=64000000") as fault:
        ImageDecoder()(png_claiming(side, side))
    assert fault.value.kind == "too-large"


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"exif": b"Exif\0\0"}])
def test_the_size_of_a_webp_is_read_before_pil_takes_memory_for_it(
    options: dict[str, object], photo: Image.Image
) -> None:
    stream = io.BytesIO()
    photo.save(stream, "WEBP", **options)
    assert _webp_size(stream.getvalue()) == photo.size
    with pytest.raises(CorruptSample, match="64 x 48 pixels are more than"):
        ImageDecoder(max_pixels=100)(stream.getvalue())


def test_larger_images_are_decoded_when_allowed(photo: Image.Image) -> None:
    with pytest.raises(CorruptSample, match="64 x 48 pixels"):
        ImageDecoder(max_pixels=48 * 64 - 1)(encoded(photo))
    assert ImageDecoder(max_pixels=48 * 64)(encoded(photo)).shape == (3, 48, 64)


def test_other_formats_are_not_opened(photo: Image.Image) -> None:
    for form in ("PPM", "ICO", "EPS", "TGA"):
        with pytest.raises(CorruptSample, match="no image of JPEG, PNG"):
            ImageDecoder()(encoded(photo, form))
    with pytest.raises(CorruptSample):
        ImageDecoder()(b"")


@pytest.mark.parametrize("form", FORMS)
def test_damaged_bytes_raise_or_decode_but_never_crash(form: str, photo: Image.Image) -> None:
    data, rng = encoded(photo, form), random.Random(0)
    decoder = ImageDecoder(max_pixels=10**6)
    for _ in range(60):
        damaged = bytearray(data)
        for _ in range(rng.choice((1, 1, 8))):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        if rng.random() < 0.3:
            del damaged[rng.randrange(len(damaged)) :]
        with suppress(CorruptSample):
            assert decoder(bytes(damaged)).dtype == torch.uint8


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_truncated_images_are_corrupt(form: str, photo: Image.Image) -> None:
    data = encoded(photo, form)
    for size in (10, len(data) // 3, len(data) - 30):
        with pytest.raises(CorruptSample):
            ImageDecoder()(data[:size])
