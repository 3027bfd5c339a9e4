"""Opens the source that a user names."""

from __future__ import annotations

import glob
import os
from pathlib import Path

from mimsuite.data import splits
from mimsuite.data.decoder import Channels, Decoder
from mimsuite.data.image.decode import ImageDecoder, extensions
from mimsuite.data.image.kinds import IMAGE_EXTENSIONS
from mimsuite.data.modalities import training_decoder
from mimsuite.data.shards import Manifest, holds_shards, open_shards, shard_splits
from mimsuite.data.shards.names import places_of, refuse_compressed
from mimsuite.data.source import MAX_SAMPLE_BYTES, Source
from mimsuite.data.sources import embedded_sets
from mimsuite.data.sources.files import FileSource, ending_of, folder_splits, open_file, open_folder
from mimsuite.data.sources.frame_folders import open_frames
from mimsuite.data.sources.layouts import layout_of
from mimsuite.data.sources.lists import LIST_EXTENSIONS, list_splits, open_list
from mimsuite.data.sources.zipped import open_zip, zip_splits
from mimsuite.data.stores import ShardCache, Url
from mimsuite.errors import UserError

_EMBEDDED = "embedded:"
# webdataset's variable for rewriting addresses, even into shell commands.
_REWRITES = "GOPEN_REWRITE"


def open_source(
    spec: str,
    split: str = "train",
    *,
    modality: str = "image",
    channels: Channels = "rgb",
    verify: str = "crc",
    max_pixels: int = 64_000_000,
    max_bytes: int = MAX_SAMPLE_BYTES,
    decoder: Decoder | None = None,
    cache: ShardCache | None = None,
    root: Path | None = None,
) -> Source:
    """Open a data set.

    Args:
        spec: a folder of images, with or without class or split subfolders; a list file (.txt,
            .csv, .tsv); a .zip file; Parquet files or a folder saved by `datasets`; a folder of
            MNIST's IDX files; one file; tar shards (a folder of them, one .tar, or a brace
            pattern), local or at an ``s3:``, ``https:`` or ``http:`` address; or
            ``embedded:NAME``.
        split: the split to open; a set without splits is all ``train``.
        channels: see :class:`Decoder`.
        verify: ``crc``: check checksums, so a flipped bit in a shard makes its sample corrupt;
            ``size``: check sizes only.
        max_pixels: larger images are not decoded.
        max_bytes: larger files are not loaded; videos are exempt, they are read in place.
        modality: modality of the samples; see :mod:`mimsuite.data.modalities`.
        decoder: replaces the modality's decoder; its extensions select the files to read.
        root: folder that the paths in a list are relative to; None: found by trying.
        cache: where whole remote shards are kept; None: only the parts in use are fetched.

    Raises:
        UserError: no such source or split, or an unsupported URL scheme.
        DataError: the source is empty or damaged.
    """
    os.environ.pop(_REWRITES, None)
    if decoder is None:
        _refuse_other_modality(spec, modality)
        decoder = training_decoder(modality, channels, max_pixels)
    if spec.startswith(_EMBEDDED):
        return embedded_sets.open_embedded(spec.removeprefix(_EMBEDDED), split, decoder, verify)
    path = _existing(spec)
    if root is not None and (path is None or path.suffix not in LIST_EXTENSIONS):
        raise UserError(f"data.root={root}: {spec} is no list of files, only its paths have a root")
    if path is None:
        return open_shards(spec, split, decoder, verify, spec, cache=cache)
    if layout := layout_of(path, decoder):
        source: Source = layout.open_set(path, split, decoder, spec)
    elif path.is_dir() and not holds_shards(path):
        frames = open_frames(path, split, decoder, spec) if decoder.sequences else None
        source = frames or open_folder(path, split, decoder, spec)
    elif path.suffix in LIST_EXTENSIONS:
        source = open_list(path, split, decoder, spec, root)
    elif path.suffix == ".zip":
        source = open_zip(path, split, decoder, spec)
    elif path.is_file() and path.suffix != ".tar":
        _refuse_unread(spec, path, decoder.extensions)
        splits.choose(spec, split, ())
        source = open_file(path, decoder, spec)
    else:
        source = open_shards(str(path), split, decoder, verify, spec)
    if isinstance(source, FileSource):
        source.max_bytes = max_bytes
    return source


def source_splits(
    spec: str, *, channels: Channels = "rgb", decoder: Decoder | None = None
) -> list[str]:
    """The splits of a source, sorted; ``["train"]`` for a set without splits.

    Args:
        channels, decoder: as in :func:`open_source`.

    Raises:
        UserError, DataError: as :func:`open_source`.
    """
    if spec.startswith(_EMBEDDED):
        return sorted(embedded_sets.splits_of(spec.removeprefix(_EMBEDDED)))
    path = _existing(spec)
    if path is None:
        found = shard_splits(spec)
    elif layout := layout_of(path, decoder or ImageDecoder(channels)):
        found = set(layout.splits_in(path, decoder or ImageDecoder(channels)) or ())
    elif path.is_dir() and not holds_shards(path):
        known = decoder.extensions if decoder else extensions(channels)
        pictures = decoder is not None and decoder.sequences
        found = set(folder_splits(path, (*known, *IMAGE_EXTENSIONS) if pictures else known))
    elif path.suffix in LIST_EXTENSIONS:
        found = list_splits(path)
    elif path.suffix == ".zip":
        found = zip_splits(path, decoder.extensions if decoder else extensions(channels))
    elif path.is_file() and path.suffix != ".tar":
        _refuse_unread(spec, path, decoder.extensions if decoder else extensions(channels))
        found = set()
    else:
        found = shard_splits(str(path))
    return sorted(found or {"train"})


def _refuse_other_modality(spec: str, modality: str) -> None:
    """Raise a ``UserError`` for an embedded set, or shards with ``index.json``, of another
    modality."""
    if spec.startswith(_EMBEDDED):
        held = embedded_sets.modality_of(spec.removeprefix(_EMBEDDED))
        if held != modality:
            raise UserError(f"{spec} holds {held} samples, but the task needs {modality}")
    path = Path(spec)
    if not (path.is_dir() or (path.suffix == ".tar" and path.exists())):
        return
    manifest = Manifest.read(path if path.is_dir() else path.parent)
    if manifest is None or (path.is_file() and path.name not in manifest.by_name):
        return
    if manifest.modality != modality:
        raise UserError(f"{spec} holds {manifest.modality} samples, but the task needs {modality}")


def _existing(spec: str) -> Path | None:
    """The folder or file that a source names; None for a pattern of shards or remote shards.

    Raises:
        UserError: the path does not exist, or is of an unsupported kind.
    """
    paths = places_of(spec)
    path = paths[0]
    if len(paths) > 1 or isinstance(path, Url):
        return None
    if not path.exists():
        if glob.has_magic(spec):
            raise UserError(f"{spec}: wildcards are not expanded; name the folder, or a {{0..9}}")
        kind = "shard" if path.suffix == ".tar" else "folder or file"
        raise UserError(f"{spec}: there is no such {kind}")
    refuse_compressed(path)
    return path


def _refuse_unread(spec: str, path: Path, known: tuple[str, ...]) -> None:
    """Raise a ``UserError`` for a single file that is neither a sample nor a set."""
    if ending_of(path.name) not in known:
        endings = ", ".join(f".{extension}" for extension in known)
        raise UserError(
            f"{spec}: a source is a folder, a list ({', '.join(LIST_EXTENSIONS)}), .tar shards, a "
            f".zip or .parquet file, or one file of {endings}"
        )
