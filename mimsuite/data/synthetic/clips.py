"""Clips of a moving camera; the camera motion is the class.

A window moves over a photo, or over a mosaic of the embedded drawings. Motions come in pairs, each
the reverse of the other. A single frame fits both, so only the order of frames reveals the class.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from mimsuite.data.image.decode import ImageDecoder
from mimsuite.data.source import Source
from mimsuite.data.sources import embedded_sets
from mimsuite.data.synthetic.maker import Maker
from mimsuite.data.video import files as video

CLASSES = (
    "pan-left",
    "pan-right",
    "pan-up",
    "pan-down",
    "zoom-in",
    "zoom-out",
    "rotate-left",
    "rotate-right",
)
FRAMES = 16
_RATE = Fraction(8)  # frames per second
_TILES = 5  # drawings along a side of the mosaic
_TILE = 64  # pixels per side of a drawing
_WAY = 48.0  # length of a pan in pixels
_ZOOM = 1.04 ** (FRAMES / 2)  # zoom factor from the middle frame to either end
_TURN = np.radians(2.5 * FRAMES / 2)


def make(
    name: str, split: str, size: int, rng: np.random.Generator, photos: Source | None = None
) -> bytes:
    """An mp4 file of 16 frames of ``size`` x ``size`` pixels, ``size`` even; splits share no image.

    Args:
        photos: at least 5 colour images to move over; None: the embedded drawings.
    """
    size += size % 2
    ground = _mosaic(split, rng) if photos is None else _photo(photos, split, rng)
    return video.encode(_frames(name, ground, size, rng), _RATE, gop=FRAMES)


def _frames(name: str, ground: Image.Image, size: int, rng: np.random.Generator) -> Iterator[Any]:
    from av import VideoFrame

    # Start anywhere within a tile, so the seams in the first frame do not give the class away.
    middle = ground.width / 2 + rng.uniform(-_TILE / 2, _TILE / 2, 2)
    scale = rng.uniform(1.2, 1.8) * _TILE / size  # ground pixels per frame pixel
    angle = rng.uniform(-0.3, 0.3)
    times = np.linspace(-1, 1, FRAMES)
    kind, _, direction = name.partition("-")
    if direction in ("left", "up", "in"):
        times = times[::-1]
    for time in times:
        x, y = middle
        x += time * _WAY / 2 * (name in ("pan-left", "pan-right"))
        y += time * _WAY / 2 * (name in ("pan-up", "pan-down"))
        zoomed = scale * _ZOOM ** (time * (kind == "zoom"))
        turned = angle + time * _TURN * (kind == "rotate")
        frame = _window(ground, x, y, zoomed, turned, size)
        yield VideoFrame.from_image(frame).reformat(format="yuv420p")


def _window(
    ground: Image.Image, x: float, y: float, scale: float, angle: float, size: int
) -> Image.Image:
    """``size`` x ``size`` pixels around (x, y), each covering ``scale`` ground pixels."""
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    half = size / 2
    affine = (cos, -sin, x - cos * half + sin * half, sin, cos, y - sin * half - cos * half)
    return ground.transform((size, size), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)


def _photo(photos: Source, split: str, rng: np.random.Generator) -> Image.Image:
    """The centre of a photo, at the size of a mosaic; every fifth photo is for testing."""
    ours = [n for n in range(len(photos)) if (n % 5 == 0) == (split == "test")]
    pixels = photos.decode(photos.read(*photos.locate(ours[rng.integers(len(ours))])))
    side = (_TILES * _TILE, _TILES * _TILE)
    return ImageOps.fit(Image.fromarray(pixels.permute(1, 2, 0).numpy()), side)


def _mosaic(split: str, rng: np.random.Generator) -> Image.Image:
    """A mosaic of drawings, each on a random background colour."""
    drawings = _drawings(split)
    chosen = drawings[rng.choice(len(drawings), _TILES * _TILES, replace=False)]
    paper = rng.uniform(0.55, 1, (len(chosen), 1, 1, 3))
    tiles = (chosen * paper).astype(np.uint8).reshape(_TILES, _TILES, _TILE, _TILE, 3)
    return Image.fromarray(tiles.swapaxes(1, 2).reshape(_TILES * _TILE, _TILES * _TILE, 3))


@cache
def _drawings(split: str) -> np.ndarray:
    """(N, 64, 64, 3) uint8: every fourth drawing of the embedded Open Clip Art set."""
    source = embedded_sets.open_embedded("openclipart", split, ImageDecoder("rgb"), "size")
    images = [
        source.decode(source.read(*source.locate(position)))
        for position in range(0, len(source), 4)
    ]
    return np.stack([image.permute(1, 2, 0).numpy() for image in images])


MAKER = Maker(CLASSES, "mp4", 64, 16, make)
