"""Synthetic scenes of six bands and three dates with known land cover; no likeness of any place.

The class says what covers most of a scene. Each cover has reflectances of its own in each band,
some of which change with the season; a corner of most scenes was not observed.
"""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np

from mimsuite.data.bands.files import write
from mimsuite.data.synthetic.maker import Maker

NAMES = ("blue", "green", "red", "nir", "swir1", "swir2")
CLASSES = ("crop", "forest", "town", "water")
NO_DATA = -9999.0
DATES = 3
_APART = 60  # days from date to date
# Reflectance x 10,000 of each cover in each band, and what the middle date adds to it.
_COVER = {
    "crop": ([500, 800, 900, 2400, 2600, 1700], [-100, 100, -400, 1800, -700, -700]),
    "forest": ([300, 500, 350, 2900, 1500, 700], [0, 50, 0, 300, 0, 0]),
    "town": ([1300, 1500, 1700, 2000, 2300, 2100], [0, 0, 0, 0, 0, 0]),
    "water": ([700, 600, 400, 250, 150, 100], [100, 100, 50, 0, 0, 0]),
}
_NOISE = 80.0  # standard deviation, in the same units
_PATCHES = 9  # areas of one cover in a scene
_SHARE = 0.6  # share of areas that have the cover of the class


def scene(name: str, size: int, rng: np.random.Generator) -> np.ndarray:
    """(T, C, H, W) int16, reflectance x 10,000; -9999 was not observed."""
    corners = rng.uniform(0, size, (_PATCHES, 2))
    rows, columns = np.mgrid[:size, :size]
    apart = (rows[..., None] - corners[:, 0]) ** 2 + (columns[..., None] - corners[:, 1]) ** 2
    area = apart.argmin(axis=-1)  # (H, W) the nearest corner's
    covers = [name if rng.random() < _SHARE else str(rng.choice(CLASSES)) for _ in corners]
    covers[0] = name
    shade = rng.normal(1.0, 0.12, _PATCHES)[area]  # (H, W) brightness of an area
    found = np.empty((DATES, len(NAMES), size, size), np.float64)
    for number in range(DATES):
        season = 1.0 if number == 1 else 0.0
        each = np.array(
            [np.add(_COVER[one][0], np.multiply(_COVER[one][1], season)) for one in covers]
        )
        found[number] = each[area].transpose(2, 0, 1) * shade
    found += rng.normal(0, _NOISE, found.shape)
    missing = rows + columns < int(rng.integers(0, size))
    for number in range(DATES):
        turned = np.rot90(missing, int(rng.integers(0, 4)))
        found[number][:, turned] = NO_DATA
    return np.rint(found).clip(NO_DATA, 20000).astype(np.int16)


def make(name: str, split: str, size: int, rng: np.random.Generator) -> bytes:
    """A GeoTIFF, a page a date, in a UTM zone drawn by chance."""
    values = scene(name, size, rng)
    first = date(2021, 3, 1) + timedelta(int(rng.integers(0, 30)))
    days = [first + timedelta(_APART * number) for number in range(DATES)]
    zone, north = int(rng.integers(1, 61)), float(rng.uniform(1e6, 6e6))
    tags = [
        (33550, "d", 3, (30.0, 30.0, 0.0), True),
        (33922, "d", 6, (0.0, 0.0, 0.0, 500_000.0, north, 0.0), True),
        (34735, "H", 12, (1, 1, 0, 2, 1024, 0, 1, 1, 3072, 0, 1, 32600 + zone), True),
    ]
    return write(
        list(values),
        names=NAMES,
        no_data=[NO_DATA] * DATES,
        days=days,
        place=[list(tags)] * DATES,
    )


MAKER = Maker(CLASSES, "tif", 64, 16, make)
