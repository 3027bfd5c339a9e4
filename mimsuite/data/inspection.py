"""What is in a set: counts, sizes, classes, and a sheet of its pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from mimsuite.config.sections import AugmentSection
from mimsuite.data.augment import EvalTransform, unit
from mimsuite.data.damage import CorruptSample
from mimsuite.data.decode import Channels
from mimsuite.data.opening import open_source, source_splits
from mimsuite.data.source import Source

_TILE = 96  # pixels
_CAPTION = 14
_COLUMNS, _ROWS = 8, 6


def inspect(spec: str, *, channels: Channels = "native", look: int = 256) -> dict[str, Any]:
    """Figures of a source, JSON-able.

    Args:
        look: how many samples of each split, evenly spread, are decoded to learn their sizes.
    """
    return {
        "source": spec,
        "splits": {
            split: _figures(open_source(spec, split, channels=channels), look)
            for split in source_splits(spec, channels=channels)
        },
    }


def contact_sheet(source: Source, path: Path) -> Path:
    """Write a PNG of up to 48 samples, evenly spread, with their class or key."""
    view = EvalTransform(AugmentSection(), _TILE)
    sheet = Image.new("RGB", (_COLUMNS * _TILE, _ROWS * (_TILE + _CAPTION)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, position in enumerate(_spread(len(source), _COLUMNS * _ROWS)):
        address = source.locate(position)
        left, top = number % _COLUMNS * _TILE, number // _COLUMNS * (_TILE + _CAPTION)
        try:
            sample = source.read(*address)
            sheet.paste(_picture(view(source.decode(sample))), (left, top))
            caption = _caption(source, sample.label, sample.key)
        except CorruptSample as fault:
            caption = f"corrupt: {fault.kind}"
        ascii_only = caption.encode("ascii", "replace").decode()
        draw.text((left + 2, top + _TILE + 1), ascii_only[:15], fill="black")
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, "PNG")
    return path


def _figures(source: Source, look: int) -> dict[str, Any]:
    heights, widths, channels, corrupt = [], [], [], []
    for position in _spread(len(source), look):
        address = source.locate(position)
        try:
            image = source.decode(source.read(*address))
        except CorruptSample as fault:
            corrupt.append(str(source.damage(*address, fault)))
            continue
        channels.append(f"{image.shape[0]} x {str(image.dtype).removeprefix('torch.')}")
        heights.append(image.shape[1])
        widths.append(image.shape[2])
    addresses = (source.locate(position) for position in range(len(source)))
    return {
        "samples": len(source),
        "shards": len(source.counts),
        "bytes": sum(source.sample_bytes(*address) for address in addresses),
        "looked_at": len(heights) + len(corrupt),
        "height": _range(heights),
        "width": _range(widths),
        "channels": {kind: channels.count(kind) for kind in sorted(set(channels))},
        "corrupt": corrupt,
        **_labels(source),
    }


def _labels(source: Source) -> dict[str, Any]:
    if not source.labelled:
        return {"labelled": 0, "classes": {}}
    labels = source.labels()
    ids, counts = np.unique(labels[labels >= 0], return_counts=True)
    names = source.classes or []
    return {
        "labelled": int(counts.sum()),
        "classes": {
            (names[i] if i < len(names) else str(i)): int(n)
            for i, n in zip(ids, counts, strict=True)
        },
    }


def _spread(total: int, wanted: int) -> list[int]:
    return np.unique(np.linspace(0, total - 1, min(total, wanted)).astype(int)).tolist()


def _range(values: list[int]) -> dict[str, int] | None:
    if not values:
        return None
    return {"min": min(values), "median": int(np.median(values)), "max": max(values)}


def _picture(view: Tensor) -> Image.Image:
    """(C, h, w) of any channel count as RGB; more than three show their first three."""
    pixels = unit(view).clamp(0, 1)
    pixels = pixels[:3] if len(pixels) >= 3 else pixels[:1].expand(3, -1, -1)
    return Image.fromarray((pixels * 255).to(torch.uint8).permute(1, 2, 0).numpy())


def _caption(source: Source, label: int | None, key: str) -> str:
    if label is None:
        return key.rpartition("/")[2]
    return source.classes[label] if source.classes and label < len(source.classes) else str(label)
