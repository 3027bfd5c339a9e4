"""Inspection of a set: counts, sizes, classes, and a contact sheet."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from mimsuite.data import modalities
from mimsuite.data.damage import CorruptSample
from mimsuite.data.decoder import Channels
from mimsuite.data.packing.codecs import SAMPLE_SECONDS, Facts, codec
from mimsuite.data.source import Source
from mimsuite.data.sources.stored import modalities_in, open_stored, stored_splits
from mimsuite.data.unused import Unused, noticing
from mimsuite.data.views import Views
from mimsuite.errors import UserError

_WIDTH, _HEIGHT = 768, 660  # pixels of a full sheet
_CAPTION = 14
_LETTER = 6  # width in pixels of a letter of the caption
Progress = Callable[[int, int], None]


def inspect(
    spec: str,
    *,
    modality: str | None = None,
    channels: Channels = "native",
    look: int | None = None,
    progress: Progress = lambda done, total: None,
) -> dict[str, Any]:
    """Properties of a source, JSON-serialisable.

    Args:
        modality: the modality to inspect; None: all that the source has.
        look: number of samples per split, evenly spread, that are decoded to learn their sizes;
            None: 256 images, 32 of slower modalities.
        progress: called with (samples decoded, samples to decode in the split).

    Returns:
        ``source``, ``modality`` and ``splits``; ``others`` lists ``modality`` and ``splits`` of
        further modalities in the same source.
    """
    found = [modality] if modality else list(modalities_in(spec))
    first, *others = (_of_modality(spec, name, channels, look, progress) for name in found)
    return {"source": spec, **first, **({"others": others} if others else {})}


def unused_in(
    source: Source,
    views: Views | None = None,
    look: int = 16,
    also: Callable[[Any], None] | None = None,
) -> Unused:
    """Content of a source that training does not use.

    Args:
        views: the views made of its samples.
        look: number of samples, evenly spread, that are decoded to learn what is dropped.
        also: called with each decoded sample.

    Raises:
        UserError: the views cannot be made of one of these samples.
    """
    unused = Unused()
    unused.update(source.unused)
    for position in _spread(len(source), look):
        # Training reports corrupt samples when it reads them.
        with suppress(CorruptSample), noticing() as noticed:
            sample = source.read(*source.locate(position))
            decoded = source.decode(sample)
            if views is not None:
                views.require_fit(decoded)
                views.notice_unused(decoded)
            if also is not None:
                also(decoded)
            unused.looked(sample.key, noticed)
    return unused


def contact_sheet(source: Source, path: Path, modality: str = "image") -> Path:
    """Write a PNG of evenly spread samples with their class or key; at most one page.

    Raises:
        UserError: the file cannot be written.
    """
    width, height = modalities.get(modality).tile
    columns, rows = _WIDTH // width, _HEIGHT // (height + _CAPTION)
    coder = codec(source, modality)
    shown = _spread(len(source), columns * rows)
    used = -(-len(shown) // columns)
    sheet = Image.new("RGB", (columns * width, used * (height + _CAPTION)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, position in enumerate(shown):
        address = source.locate(position)
        left, top = number % columns * width, number // columns * (height + _CAPTION)
        try:
            sample = source.read(*address)
            sheet.paste(coder.picture(source, sample), (left, top))
            caption = _caption(source, source.label(*address), sample.key)
        except CorruptSample as fault:
            caption = f"corrupt: {fault.kind}"
        ascii_only = caption.encode("ascii", "replace").decode()
        fitting = ascii_only[: (width - 2) // _LETTER]
        draw.text((left + 2, top + height + 1), fitting, fill="black")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path, "PNG")
    except OSError as fault:
        raise UserError(f"cannot write {path}: {fault.strerror or fault}") from None
    return path


def _of_modality(
    spec: str, modality: str, channels: Channels, look: int | None, progress: Progress
) -> dict[str, Any]:
    return {
        "modality": modality,
        "splits": {
            split: _figures(
                open_stored(spec, split, modality, channels=channels), modality, look, progress
            )
            for split in stored_splits(spec, modality, channels=channels)
        },
    }


def _figures(source: Source, modality: str, look: int | None, progress: Progress) -> dict[str, Any]:
    look = look or (256 if modalities.get(modality).codec else 32)
    coder = codec(source, modality, SAMPLE_SECONDS)
    facts: list[Facts] = []
    corrupt = []
    unused = Unused()
    unused.update(source.unused)
    chosen = _spread(len(source), look)
    for number, position in enumerate(chosen):
        progress(number, len(chosen))
        address = source.locate(position)
        try:
            with noticing() as noticed:
                facts.append(coder.facts(source, source.read(*address)))
            unused.looked(source.key(*address), noticed)
        except CorruptSample as fault:
            corrupt.append(str(source.damage(*address, fault)))
    addresses = (source.locate(position) for position in range(len(source)))
    return {
        "samples": len(source),
        "shards": len(source.counts),
        "bytes": sum(source.sample_bytes(*address) for address in addresses),
        "looked_at": len(facts) + len(corrupt),
        **_summary(facts),
        "corrupt": corrupt,
        "unused": unused.as_json(),
        **_labels(source),
    }


def _summary(facts: list[Facts]) -> dict[str, Any]:
    """Summarise numbers by their range and words by their counts."""
    names = dict.fromkeys(name for one in facts for name in one)
    summary: dict[str, Any] = {}
    for name in names:
        values = [one[name] for one in facts if name in one]
        words = [value for value in values if isinstance(value, str)]
        if words:
            summary[name] = {word: words.count(word) for word in sorted(set(words))}
        else:
            summary[name] = _range([value for value in values if not isinstance(value, str)])
    return summary


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
    chosen = np.unique(np.linspace(0, total - 1, min(total, wanted)).astype(int))
    return [int(place) for place in chosen]


def _range(values: list[Any]) -> dict[str, int | float]:
    middle = float(np.median(values))
    whole = all(isinstance(value, int) for value in values)
    return {
        "min": min(values),
        "median": int(middle) if whole else round(middle, 4),
        "max": max(values),
    }


def _caption(source: Source, label: int | None, key: str) -> str:
    if label is None:
        return key.rpartition("/")[2]
    return source.classes[label] if source.classes and label < len(source.classes) else str(label)
