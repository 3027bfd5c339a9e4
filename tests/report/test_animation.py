"""Clips in pictures: four frames side by side, and an animation."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from mimsuite.methods import Panel
from mimsuite.report.animation import moving, save_animation
from mimsuite.report.pictures import panel_grid

STATISTICS = ((0.5,), (0.5,))


def panels(frames: int = 6) -> list[Panel]:
    ramp = torch.linspace(-1, 1, frames)[None, None, :, None, None]
    clip = ramp.expand(2, 3, frames, 32, 32)
    return [Panel("original", clip), Panel("still", torch.zeros(2, 3, 32, 32))]


def test_an_animation_shows_every_frame_and_repeats(tmp_path: Path) -> None:
    path = save_animation(tmp_path / "a.gif", panels(), *STATISTICS)
    picture = Image.open(path)
    assert (picture.n_frames, picture.info["loop"]) == (6, 0)
    shades = []
    for number in range(6):
        picture.seek(number)
        shades.append(picture.convert("L").getpixel((40, 80)))
    assert shades[0] < 5
    assert shades[-1] > 250
    assert shades == sorted(shades)


def test_a_sheet_shows_four_frames_side_by_side() -> None:
    clip, still = panels()
    assert moving([clip])
    assert not moving([still])
    wide = panel_grid([clip], *STATISTICS)
    narrow = panel_grid([still], *STATISTICS)
    assert wide.width - narrow.width == 3 * 96
    assert wide.height == narrow.height
