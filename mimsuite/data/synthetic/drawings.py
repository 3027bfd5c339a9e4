"""Images of a coloured shape, one of six; the shape is the class.

Position, size, angle, colour and background gradient vary.
"""

from __future__ import annotations

import io
import math

import numpy as np
from PIL import Image, ImageDraw

from mimsuite.data.synthetic.maker import Maker

CLASSES = ("cross", "disc", "ring", "square", "star", "triangle")
_OVERSAMPLE = 4  # drawn larger, then downsized for smooth edges


def make(name: str, split: str, size: int, rng: np.random.Generator) -> bytes:
    """A PNG file of ``size`` x ``size`` pixels."""
    stream = io.BytesIO()
    _draw(name, size, rng).save(stream, "PNG")
    return stream.getvalue()


def _draw(name: str, size: int, rng: np.random.Generator) -> Image.Image:
    side = size * _OVERSAMPLE
    picture = _background(side, rng)
    colour = tuple(int(c) for c in rng.integers(0, 256, 3))
    radius = side * rng.uniform(0.18, 0.38)
    x, y = rng.uniform(radius, side - radius, 2)
    draw = ImageDraw.Draw(picture)
    circle = (x - radius, y - radius, x + radius, y + radius)
    if name == "disc":
        draw.ellipse(circle, fill=colour)
    elif name == "ring":
        draw.ellipse(circle, outline=colour, width=int(radius * 0.35))
    else:
        draw.polygon(_corners(name, x, y, radius, rng.uniform(0, 2 * math.pi)), fill=colour)
    return picture.resize((size, size), Image.Resampling.BOX)


def _background(side: int, rng: np.random.Generator) -> Image.Image:
    corners = rng.integers(0, 256, (2, 2, 3)).astype(np.uint8)
    return Image.fromarray(corners).resize((side, side), Image.Resampling.BILINEAR)


def _corners(
    name: str, x: float, y: float, radius: float, angle: float
) -> list[tuple[float, float]]:
    """The shape's corners, from its table of radii around the centre."""
    distances = {
        "triangle": [1.0] * 3,
        "square": [1.0] * 4,
        "star": [1.0, 0.45] * 5,
        "cross": [1.0, 1.0, 0.4] * 4,
    }[name]
    turn = 2 * math.pi / len(distances)
    return [
        (x + radius * d * math.cos(angle + i * turn), y + radius * d * math.sin(angle + i * turn))
        for i, d in enumerate(distances)
    ]


MAKER = Maker(CLASSES, "png", 64, 8, make)
