"""Stored samples of any modality: detect the modalities in a source, and open it for one."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from mimsuite.data import modalities
from mimsuite.data.array_files import NPY_MAGIC, ZIP_MAGIC, npy_header, npz_names
from mimsuite.data.damage import CorruptSample
from mimsuite.data.decoder import Channels, Decoder
from mimsuite.data.modalities import IMAGE, VIDEO, Modality, NoDecoder
from mimsuite.data.shards import Manifest, TarSource, holds_shards, open_index
from mimsuite.data.shards.index import member_counts
from mimsuite.data.shards.names import expand, places_of, shard_files
from mimsuite.data.source import Source
from mimsuite.data.sources import embedded_sets
from mimsuite.data.sources.files import FileSource, walk
from mimsuite.data.sources.layouts import speaks_of
from mimsuite.data.sources.opening import open_source, source_splits
from mimsuite.data.splits import split_of
from mimsuite.data.stores import Url
from mimsuite.errors import DataError, UserError

_LOOKED_AT = 16  # samples tried to find the modality, since the first may be damaged


def open_stored(spec: str, split: str, modality: str, *, channels: Channels = "native") -> Source:
    """Open a source of one modality, with all files that ``data pack`` can read.

    Args:
        channels: image channels; see :class:`Decoder`. Other modalities are not decoded.

    Raises:
        UserError, DataError: as :func:`open_source`.
    """
    if modalities.get(modality).codec is not None:
        return open_source(spec, split, modality=modality, channels=channels)
    return open_source(spec, split, decoder=stored_decoder(modality, channels))


def stored_splits(spec: str, modality: str, *, channels: Channels = "native") -> list[str]:
    """The splits of a source for a modality; see :func:`source_splits`."""
    return source_splits(spec, decoder=stored_decoder(modality, channels))


def stored_decoder(modality: str, channels: Channels) -> Decoder:
    """The modality's decoder if its codec uses it, else one that only lists extensions."""
    known = modalities.get(modality)
    if known.codec is not None:
        return modalities.training_decoder(modality, channels, Decoder.max_pixels)
    return NoDecoder(known)


def modalities_in(spec: str) -> dict[str, int]:
    """Numbers of files (in shards: samples) by modality, most frequent first.

    The modality comes from ``index.json``, else from the file extensions; if those are ambiguous
    (``npy``, ``npz``), from the content of the first readable sample.

    Raises:
        UserError, DataError: as :func:`open_source`; or there is nothing readable in it.
    """
    if spec.startswith("embedded:"):
        return {embedded_sets.modality_of(spec.removeprefix("embedded:")): 1}
    counted, declared = _extensions(spec)
    if declared is not None:
        return {modalities.get(declared).name: sum(counted.values())}
    found = modalities.by_extensions(counted)
    unclear = set(counted) and all(len(_meant(extension)) > 1 for extension in counted)
    if unclear and len(found) > 1:
        kind = _first_kind(spec)
        found = {kind: sum(counted.values())} if kind in found else found
    return found or {IMAGE.name: 0}


def only_modality(spec: str, wanted: str | None) -> str:
    """The modality to read: ``wanted``, or the only one in the source.

    Raises:
        UserError: no such modality, or ``wanted`` is None and the source has several.
    """
    if wanted is not None:
        return modalities.get(wanted).name
    found = modalities_in(spec)
    if len(found) > 1:
        counts = ", ".join(f"{name} ({count})" for name, count in found.items())
        raise UserError(f"{spec} holds {counts}: choose one with --modality")
    return next(iter(found))


def is_remote(spec: str) -> bool:
    """Whether a source is a URL instead of a local path."""
    return any(isinstance(place, Url) for place in places_of(spec))


def local_shards(spec: str) -> list[Path]:
    """The existing shards of a local set, regardless of ``index.json``.

    Raises:
        UserError: no folder or file of that name.
    """
    folder = Path(spec)
    if folder.is_dir():
        parts = [part for part in folder.iterdir() if part.is_dir() and split_of(part.name)]
        return [path for place in (folder, *sorted(parts)) for path in shard_files(place)]
    if folder.exists():
        return [folder]
    found = [place for place in expand(spec) if isinstance(place, Path) and place.is_file()]
    if not found:
        source_splits(spec, decoder=_anything())  # raises the fitting error
    return found


def _anything() -> NoDecoder:
    return NoDecoder(Modality("any", modalities.payload_extensions(), sequences=True))


def _meant(extension: str) -> list[str]:
    return list(modalities.by_extensions({extension: 1}))


def _extensions(spec: str) -> tuple[dict[str, int], str | None]:
    """Number of files by extension, and the modality declared in ``index.json``."""
    decoder = _anything()
    path = Path(spec)
    for name in modalities.names():
        if speaks_of(path, modalities.get(name).layouts):
            return {}, name
    if path.is_dir() and not holds_shards(path):
        return _count(walk(path, decoder.extensions)), None
    if path.is_dir() or is_remote(spec) or path.suffix == ".tar" or not path.exists():
        return _shard_extensions(spec)
    counted: dict[str, int] = {}
    for split in source_splits(spec, decoder=decoder):
        source = open_source(spec, split, decoder=decoder)
        if source.in_frames:
            return {}, VIDEO.name
        assert isinstance(source, FileSource)
        keys = [source.key(shard, 0) for shard in range(len(source))]
        for extension, count in _count(keys).items():
            counted[extension] = counted.get(extension, 0) + count
    return counted, None


def _count(paths: Iterable[str]) -> dict[str, int]:
    counted: dict[str, int] = {}
    for path in paths:
        extension = path.rpartition(".")[2].lower()
        if extension in modalities.payload_extensions():
            counted[extension] = counted.get(extension, 0) + 1
    return counted


def _shard_extensions(spec: str) -> tuple[dict[str, int], str | None]:
    counted: dict[str, int] = {}
    declared: str | None = None
    if is_remote(spec):
        decoder = _anything()
        source = open_source(spec, source_splits(spec, decoder=decoder)[0], decoder=decoder)
        assert isinstance(source, TarSource)
        _add(counted, source.facts.counts)
    else:
        for path in local_shards(spec):
            with suppress(DataError):  # reported when its samples are read
                manifest = Manifest.read(path.parent)
                declared = manifest.modality if manifest else declared
                _add(counted, member_counts(open_index(path)))
    return counted, declared


def _add(counted: dict[str, int], counts: dict[str, int]) -> None:
    for extension, count in counts.items():
        last = extension.rpartition(".")[2]
        if last in modalities.payload_extensions():
            counted[last] = counted.get(last, 0) + count


def _first_kind(spec: str) -> str | None:
    """The modality of the first sample that can be recognised."""
    decoder = _anything()
    try:
        source = open_source(spec, source_splits(spec, decoder=decoder)[0], decoder=decoder)
    except DataError:  # reported when the set is read
        return None
    for position in range(min(len(source), _LOOKED_AT)):
        with suppress(CorruptSample):
            payload = source.payload(*source.locate(position))
            if isinstance(payload, bytes) and (kind := _kind(payload)):
                return kind
    return None


def _kind(data: bytes) -> str | None:
    """Modality of an array file: float rows of 3, 4, 6 or 7 are clouds, others images or grids."""
    if data.startswith(NPY_MAGIC):
        shape, dtype, _ = npy_header(data)
        cloud = len(shape) == 2 and shape[1] in (3, 4, 6, 7) and dtype.kind == "f"
        return modalities.POINTS.name if cloud else IMAGE.name
    if data.startswith(ZIP_MAGIC):
        return (modalities.GRIDS if "rgbsigma" in npz_names(data) else modalities.POINTS).name
    return None
