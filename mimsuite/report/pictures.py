"""Pictures as PNG: columns of panels with titles, and plain sheets of images.

Letters: B batch, C channels, H x W pixels.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from mimsuite.files import write_atomic
from mimsuite.text import clean

if TYPE_CHECKING:
    from torch import Tensor

    from mimsuite.methods import Panel

_SMALLEST, _LARGEST = 96, 448  # pixels: a cell's short side at least, its long side at most
_FRAMES = 4  # frames shown per clip
_GAP, _MARGIN = 8, 16  # pixels
_FONT_SIZE, _LINE = 13, 17  # pixels
_PAPER, _INK, _FRAME = (255, 255, 255), (31, 41, 55), (209, 213, 219)


@dataclass(frozen=True)
class _Column:
    title: list[str]
    cells: list[Image.Image]
    width: int


def save_panels(
    path: str | Path,
    panels: Sequence[Panel],
    mean: Sequence[float],
    std: Sequence[float],
    rows: int = 8,
) -> Path:
    """Write a grid: one row a sample, one column a panel under its title.

    Small images are enlarged by whole factors without smoothing, so that patches stay crisp.

    Args:
        panels: each (B, C, H, W), normalised; or (B, C, T, H, W), of which four frames are shown
            side by side. One channel is shown as gray; of more than three
            the first three are shown, and the title says so.
        mean, std: what was subtracted from pixels in [0, 1], and divided by; per channel, or one
            for all.
        rows: samples shown at most.

    Raises:
        ValueError: no panels, or statistics of another number of channels.
    """
    return write_atomic(Path(path), _png(panel_grid(panels, mean, std, rows)))


def panel_grid(
    panels: Sequence[Panel], mean: Sequence[float], std: Sequence[float], rows: int = 8
) -> Image.Image:
    """The picture that :func:`save_panels` writes; arguments and errors as there."""
    if not panels:
        raise ValueError("no panels to draw")
    font = _font()
    columns = [_column(panel, mean, std, rows, font) for panel in panels]
    return _grid(columns, font)


def save_batch(
    path: str | Path,
    images: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    limit: int = 32,
) -> Path:
    """Write up to ``limit`` normalised images (B, C, H, W) as a sheet, eight to a row."""
    cells = [_cell(picture) for picture in _pictures(images[:limit], mean, std)]
    across = min(8, len(cells))
    columns = [
        _Column([], column, max(cell.width for cell in column))
        for column in (cells[i::across] for i in range(across))
    ]
    return write_atomic(Path(path), _png(_grid(columns, _font())))


def to_pixels(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Normalised (B, C, H, W) float -> uint8 on the CPU, clipped; NaN shows as black."""
    import torch

    channels = images.shape[1]
    scale, shift = (torch.tensor(_per_channel(v, channels)).view(1, -1, 1, 1) for v in (std, mean))
    pixels = images.detach().float().cpu() * scale + shift
    return (pixels.nan_to_num(0.0, 1.0, 0.0).clamp(0, 1) * 255).round().to(torch.uint8)


def _per_channel(values: Sequence[float], channels: int) -> list[float]:
    if len(values) not in (1, channels):
        raise ValueError(f"{len(values)} statistics for images of {channels} channels")
    return [float(v) for v in values] * (channels if len(values) == 1 else 1)


def _column(
    panel: Panel, mean: Sequence[float], std: Sequence[float], rows: int, font: ImageFont.ImageFont
) -> _Column:
    if not panel.normalised:
        mean, std = (0.0,), (1.0,)
    cells = [_cell(picture) for picture in _pictures(_strip(panel.images[:rows]), mean, std)]
    width = max(cell.width for cell in cells)
    title = clean(panel.title) + _channels_note(panel.images.shape[1])
    return _Column(_wrap(title, width, font), cells, width)


def _strip(images: Tensor) -> Tensor:
    """Frames spread over a clip (B, C, T, H, W) side by side; images as they are."""
    if images.ndim == 4:
        return images
    last = images.shape[2] - 1
    shown = sorted({round(last * part / (_FRAMES - 1)) for part in range(_FRAMES)})
    return images[:, :, shown].transpose(2, 3).flatten(3)


def _channels_note(channels: int) -> str:
    if channels in (1, 3):
        return ""
    return " (channel 1 of 2)" if channels == 2 else f" (channels 1-3 of {channels})"


def _pictures(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> list[Image.Image]:
    shown = 3 if images.shape[1] >= 3 else 1
    arrays = to_pixels(images, mean, std)[:, :shown].permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(a if shown == 3 else a[..., 0]).convert("RGB") for a in arrays]


def _cell(picture: Image.Image) -> Image.Image:
    """The picture in the size it is shown."""
    width, height = picture.size
    factor = -(-_SMALLEST // min(width, height))
    if factor > 1 and factor * max(width, height) <= _LARGEST:
        return picture.resize((width * factor, height * factor), Image.Resampling.NEAREST)
    shrink = _LARGEST / max(width, height)
    if shrink < 1:
        size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
        return picture.resize(size, Image.Resampling.LANCZOS)
    return picture


def _grid(columns: list[_Column], font: ImageFont.ImageFont) -> Image.Image:
    heights = [
        max(column.cells[row].height for column in columns if row < len(column.cells))
        for row in range(max(len(column.cells) for column in columns))
    ]
    lines = max(len(column.title) for column in columns)
    top = _MARGIN + lines * _LINE + (_GAP // 2 if lines else 0)
    width = 2 * _MARGIN + sum(c.width for c in columns) + _GAP * (len(columns) - 1)
    height = top + sum(heights) + _GAP * (len(heights) - 1) + _MARGIN
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    x = _MARGIN
    for column in columns:
        for i, line in enumerate(column.title):  # titles end at one height, next to the pictures
            y = _MARGIN + (lines - len(column.title) + i) * _LINE
            draw.text((x + column.width / 2, y), line, fill=_INK, font=font, anchor="ma")
        y = top
        for cell, row_height in zip(column.cells, heights, strict=False):
            left = x + (column.width - cell.width) // 2
            upper = y + (row_height - cell.height) // 2
            sheet.paste(cell, (left, upper))
            # Outside the picture: where it is white, one still sees where it ends.
            box = (left - 1, upper - 1, left + cell.width, upper + cell.height)
            draw.rectangle(box, outline=_FRAME)
            y += row_height + _GAP
        x += column.width + _GAP
    return sheet


def _wrap(title: str, width: int, font: ImageFont.ImageFont) -> list[str]:
    """The title in lines of at most ``width`` pixels, as far as its words allow."""
    lines: list[str] = []
    for word in title.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _font() -> ImageFont.ImageFont:
    return ImageFont.load_default(size=_FONT_SIZE)  # type: ignore[return-value]


def _png(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.save(data, format="PNG", compress_level=4)  # training waits for it
    return data.getvalue()
