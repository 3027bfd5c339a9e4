"""Write any source as WebDataset shards: the same input and options give the same bytes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mimsuite.data.damage import CorruptSample, Damage, DamageCount
from mimsuite.data.encode import encode, extension_of, shrink
from mimsuite.data.opening import open_source, source_splits
from mimsuite.data.parallel import each
from mimsuite.data.shards import Manifest, build_index
from mimsuite.data.shards.manifest import FILE_NAME, ShardEntry, entry_of
from mimsuite.data.source import Sample, Source
from mimsuite.errors import DataError, UserError
from mimsuite.noise import keyed_rng

_LONGEST_KEY = 80  # bytes: a tar header has room for 100 with extension


@dataclass(frozen=True)
class PackOptions:
    """How shards are written.

    Attributes:
        shard_size: samples a shard.
        resize: largest short side in pixels; larger images shrink to it.
        quality: JPEG quality to encode all images with; None: bytes stay as they are, unless
            ``resize`` changes the image.
        split: the one split to pack; None: all that the source has.
        seed: of the order of samples; None: source order.
        workers: processes; they do not change the result.
    """

    shard_size: int = 2048
    resize: int | None = None
    quality: int | None = None
    split: str | None = None
    seed: int | None = 0
    workers: int = 1


@dataclass
class Packed:
    """What was written: the shards, and the samples left out since they are corrupt."""

    shards: list[ShardEntry] = field(default_factory=list)
    damaged: list[Damage] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {
            "shards": [entry.model_dump() for entry in self.shards],
            "samples": sum(entry.samples for entry in self.shards),
            "bytes": sum(entry.bytes for entry in self.shards),
            "damaged": [vars(item) for item in self.damaged],
        }


@dataclass(frozen=True)
class _Job:
    """One shard to be written; ``keys`` are the names of its samples, in order."""

    source: Source
    positions: np.ndarray
    keys: list[str]
    path: Path
    options: PackOptions


def pack(
    spec: str,
    out: Path,
    options: PackOptions | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Packed:
    """Write shards, their indexes and ``index.json``.

    Every image is decoded once, so what is packed can be read; corrupt samples are left out.

    Args:
        spec: any source, see :func:`open_source`.
        out: a folder without shards, made if needed.
        progress: called with (samples done, samples in all).

    Raises:
        UserError: ``out`` holds shards already, or a source or split that does not exist.
        DataError: too many corrupt samples.
    """
    options = options or PackOptions()
    _refuse_used(out)
    names = [options.split] if options.split else source_splits(spec, channels="native")
    sources = [open_source(spec, name, channels="native") for name in names]
    jobs = [job for source in sources for job in _jobs(source, out, options)]
    total = sum(len(source) for source in sources)
    result, count, done = Packed(), DamageCount(total), 0
    extensions: set[str] = set()
    for job, (damaged, found) in zip(jobs, each(_write, jobs, options.workers), strict=True):
        done += len(job.positions)
        progress(done, total)
        result.damaged += count.add(damaged)
        extensions |= found
        if found:
            header = build_index(job.path)
            result.shards.append(entry_of(job.path, header.samples))
    if not result.shards:
        raise DataError(f"{spec}: nothing to pack, no sample can be read")
    Manifest(extensions=sorted(extensions), classes=sources[0].classes, shards=result.shards).write(
        out
    )
    return result


def _refuse_used(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise UserError(f"cannot make the folder {out}: {fault.strerror}") from None
    if (out / FILE_NAME).exists() or any(out.glob("*.tar")):
        raise UserError(f"{out} holds shards already: name another folder, or remove them")


def _jobs(source: Source, out: Path, options: PackOptions) -> Iterator[_Job]:
    order = np.arange(len(source))
    if options.seed is not None:
        order = keyed_rng(options.seed, "pack", source.split).permutation(len(source))
    used: set[str] = set()
    for number, start in enumerate(range(0, len(order), options.shard_size)):
        positions = order[start : start + options.shard_size]
        keys = [
            _member_key(source.key(*source.locate(int(p))), start + i, used)
            for i, p in enumerate(positions)
        ]
        yield _Job(source, positions, keys, out / f"{source.split}-{number:06d}.tar", options)


def _member_key(key: str, number: int, used: set[str]) -> str:
    """A key as tar and WebDataset take it: no dot in the base name, short, used once."""
    folder, slash, base = key.rpartition("/")
    stem, dot, extension = base.rpartition(".")
    name = folder + slash + (stem if dot else extension).replace(".", "_")
    encoded = name.encode("utf-8", "surrogateescape")
    plain = name.isprintable() and not name.startswith(("/", ".", "__")) and "/." not in name
    if len(encoded) > _LONGEST_KEY or not plain or not (stem or extension) or name in used:
        name = f"{number:09d}"
    used.add(name)
    return name


def _write(job: _Job) -> tuple[list[Damage], set[str]]:
    """Write one shard; returns its corrupt samples and the extensions used, none if it is empty."""
    os.environ.setdefault("WDS_SECURE", "1")
    from webdataset import TarWriter

    damaged: list[Damage] = []
    extensions: set[str] = set()
    temporary = job.path.with_name(f".{job.path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            # Fixed times and owners: equal input gives equal bytes.
            with TarWriter(file, user="", group="", mtime=0, encoder=False) as tar:
                for position, key in zip(job.positions, job.keys, strict=True):
                    address = job.source.locate(int(position))
                    try:
                        members = _members(job.source, job.source.read(*address), job.options)
                    except CorruptSample as fault:
                        damaged.append(job.source.damage(*address, fault))
                        continue
                    tar.write({"__key__": key, **members})
                    extensions.update(members)
            file.flush()
            os.fsync(file.fileno())
        if extensions:
            temporary.replace(job.path)
    except OSError as fault:
        raise UserError(f"cannot write {job.path}: {fault.strerror or fault}") from None
    finally:
        temporary.unlink(missing_ok=True)
    return damaged, extensions


def _members(source: Source, sample: Sample, options: PackOptions) -> dict[str, bytes]:
    image = source.decode(sample)
    stored = sample.payload if isinstance(sample.payload, bytes) else None
    extension = extension_of(stored) if stored is not None else ""
    small = image if options.resize is None else shrink(image, options.resize)
    if stored is None or small is not image or (options.quality is not None and stored):
        extension, stored = encode(small, quality=options.quality, jpeg=extension == "jpg")
    members = {extension: stored}
    if sample.label is not None:
        members["cls"] = str(sample.label).encode()
    return members
