"""Made-up images with labels, for trying things out where there is no data at hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from mimsuite.errors import UserError
from mimsuite.noise import keyed_rng

CLASSES = ("cross", "disc", "ring", "square", "star", "triangle")
_TEST_EVERY = 5  # samples, of which one is for testing
_OVERSAMPLE = 4  # drawn larger, then shrunk: smooth edges


def synthesise_images(
    out: Path,
    *,
    count: int = 600,
    size: int = 64,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, int]:
    """Write PNG images of six coloured shapes to ``out/{train,test}/CLASS/``.

    The class is the shape; its place, size, angle and colour, and a background gradient, vary.

    Returns:
        samples by split.

    Raises:
        UserError: ``out`` exists and is not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there already and not empty: name a new folder")
    written = {"train": 0, "test": 0}
    for number in range(count):
        name = CLASSES[number % len(CLASSES)]
        split = "test" if number // len(CLASSES) % _TEST_EVERY == 0 else "train"
        folder = out / split / name
        folder.mkdir(parents=True, exist_ok=True)
        picture = _draw(name, size, keyed_rng(seed, "synth", number))
        picture.save(folder / f"{number:06d}.png")
        written[split] += 1
        progress(number + 1, count)
    return written


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
    """Corners in polar form: their number, and how far each lies from the middle."""
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
