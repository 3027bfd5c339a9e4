"""Crop boxes of video clips: pure functions of the frame size.

The rules are those of OpenGVLab/VideoMAEv2.
"""

from __future__ import annotations

import numpy as np

from mimsuite.data.image.geometry import Box

_SCALES = (1.0, 0.875, 0.75, 0.66)  # box side / short side of the frame
_NEAR = 3  # a side that differs from the view's by fewer pixels snaps to it


def multi_scale(rng: np.random.Generator, height: int, width: int, size: tuple[int, int]) -> Box:
    """A random box: one of ten sizes at one of 13 places, each equally likely."""
    sizes = box_sizes(height, width, size)
    box_height, box_width = sizes[int(rng.integers(len(sizes)))]
    places = box_places(height, width, box_height, box_width)
    top, left = places[int(rng.integers(len(places)))]
    return Box(top, left, box_height, box_width)


def box_sizes(height: int, width: int, size: tuple[int, int]) -> list[tuple[int, int]]:
    """(height, width) of the ten boxes; sides close to ``size``, the view's, snap to it."""
    sides = [int(min(height, width) * scale) for scale in _SCALES]
    heights, widths = ([view if abs(s - view) < _NEAR else s for s in sides] for view in size)
    return [
        (heights[i], widths[j])
        for i in range(len(sides))
        for j in range(len(sides))
        if abs(i - j) <= 1
    ]


def box_places(height: int, width: int, box_height: int, box_width: int) -> list[tuple[int, int]]:
    """(top, left) of the 13 places: corners, centre, middles of the sides, quarter points."""
    y, x = (height - box_height) // 4, (width - box_width) // 4
    quarters = [(0, 0), (0, 4), (4, 0), (4, 4), (2, 2), (2, 0), (2, 4), (4, 2), (0, 2)]
    quarters += [(1, 1), (1, 3), (3, 1), (3, 3)]
    return [(y * down, x * across) for down, across in quarters]


def test_boxes(height: int, width: int, size: tuple[int, int], crops: int) -> list[Box]:
    """``crops`` boxes of ``size``, spread from the top left; a single one is centred.

    If frames were resized by their short side, as published, the boxes lie along the long side.
    """
    rooms = height - size[0], width - size[1]
    if crops == 1:
        return [Box(rooms[0] // 2, rooms[1] // 2, *size)]
    steps = [room / (crops - 1) for room in rooms]
    return [Box(int(n * steps[0]), int(n * steps[1]), *size) for n in range(crops)]
