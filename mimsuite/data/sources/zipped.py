"""A zip file read like a folder; nothing is unpacked to disk."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

from mimsuite.data import splits
from mimsuite.data.damage import CorruptSample
from mimsuite.data.decoder import Decoder
from mimsuite.data.source import MAX_SAMPLE_BYTES
from mimsuite.data.sources.files import FileSource, Listing, class_listing, ending_of, is_litter
from mimsuite.errors import DataError


class ZipSource(FileSource):
    """Each member is a shard of one sample; its key is its path in the archive.

    Args:
        prefix: the folder that contains all members; it is not part of the keys.
    """

    def __init__(
        self, path: Path, listing: Listing, prefix: str, *, name: str, split: str, decoder: Decoder
    ) -> None:
        super().__init__(path, listing, name=name, split=split, decoder=decoder)
        self.prefix = prefix
        self._archive: zipfile.ZipFile | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_archive": None}

    def payload(self, shard: int, offset: int) -> bytes:
        member = self._member(shard)
        # Unpacking stops at the size in the archive's directory, so it is safe to check that.
        if member.file_size > MAX_SAMPLE_BYTES:
            raise CorruptSample("too-large", f"more than {MAX_SAMPLE_BYTES} bytes")
        try:
            with self._open().open(member) as file:
                return file.read(MAX_SAMPLE_BYTES)
        except (zipfile.BadZipFile, zlib.error, EOFError) as fault:
            raise CorruptSample("crc", str(fault)) from None
        except (RuntimeError, NotImplementedError) as fault:  # a password or codec
            raise CorruptSample("decode", str(fault)) from None
        except OSError as fault:
            raise CorruptSample("missing", fault.strerror or str(fault)) from None

    def sample_bytes(self, shard: int, offset: int) -> int:
        return self._member(shard).file_size

    def _member(self, shard: int) -> zipfile.ZipInfo:
        return self._open().getinfo(self.prefix + self._paths[shard])

    def _open(self) -> zipfile.ZipFile:
        if self._archive is None:
            self._archive = _opened(self.root)
        return self._archive


def zip_splits(path: Path, known: tuple[str, ...]) -> set[str]:
    """Splits by the folders in a zip file; empty without split folders."""
    return set(_by_split(_members(path)[1], known))


def open_zip(path: Path, split: str, decoder: Decoder, name: str) -> ZipSource:
    """Open a zip file of samples; its folders are splits and classes, as in a folder source.

    Raises:
        UserError: no such split.
        DataError: the file is no zip file, or holds no readable sample.
    """
    prefix, members = _members(path)
    parts = _by_split(members, decoder.extensions)
    split = splits.choose(name, split, parts)
    every = [member for member in members if ending_of(member) in decoder.extensions]
    found = parts or {split: ("", every)}
    folder, paths = found[split]
    if not paths:
        looked_for = ", ".join(f".{extension}" for extension in decoder.extensions)
        raise DataError(f"{name}: no files in it that are read (looked for {looked_for})")
    listing = class_listing(paths, [some for _, some in found.values()])
    source = ZipSource(path, listing, prefix + folder, name=name, split=split, decoder=decoder)
    for member in members:
        ending = ending_of(member)
        if member.startswith(folder) and ending not in decoder.extensions:
            what = f".{ending} files" if ending else "files without an ending"
            source.unused.add(what, [member])
    return source


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError) as fault:
        raise DataError(f"{path} is no zip file that can be read: {fault}") from None
    except OSError as fault:
        raise DataError(f"cannot read {path}: {fault.strerror or fault}") from None


def _members(path: Path) -> tuple[str, list[str]]:
    """The folder that contains all files of a zip (or ""), and their sorted paths in it."""
    with _opened(path) as archive:
        names = sorted({item.filename for item in archive.infolist() if not item.is_dir()})
    names = [name for name in names if not any(map(is_litter, name.split("/")))]
    tops = {name.partition("/")[0] if "/" in name else "" for name in names}
    prefix = "".join(f"{top}/" for top in tops if top and len(tops) == 1)
    if splits.split_of(prefix.rstrip("/")):
        prefix = ""
    return prefix, [name.removeprefix(prefix) for name in names]


def _by_split(members: list[str], known: tuple[str, ...]) -> dict[str, tuple[str, list[str]]]:
    """Split -> its folder and the paths in it; by the rule of :func:`files.folder_splits`."""
    read = [member for member in members if ending_of(member) in known and "/" in member]
    folders = sorted({member.partition("/")[0] for member in read})
    named = [folder for folder in folders if splits.split_of(folder)]
    if len(named) < 2 and (not named or len(folders) > 1):
        return {}
    return {
        splits.split_of(folder) or folder: (
            f"{folder}/",
            [m.partition("/")[2] for m in read if m.partition("/")[0] == folder],
        )
        for folder in folders
    }
