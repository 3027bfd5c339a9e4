"""Write any source as WebDataset shards; the same input and options give the same bytes."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mimsuite.data import modalities
from mimsuite.data.damage import CorruptSample, Damage, DamageCount
from mimsuite.data.packing.codecs import SAMPLE_SECONDS, Codec, codec
from mimsuite.data.packing.indexing import facts_by_split, index_shard
from mimsuite.data.packing.pack_progress import Finished, Workplace, plan_of
from mimsuite.data.parallel import advance, each
from mimsuite.data.shards import Manifest, open_index
from mimsuite.data.shards.facts import ShardFacts
from mimsuite.data.shards.manifest import ShardEntry
from mimsuite.data.source import Source
from mimsuite.data.sources.stored import only_modality, open_stored, stored_splits
from mimsuite.data.unused import Unused, noticing
from mimsuite.errors import DataError, UserError
from mimsuite.noise import key_of, keyed_rng

_LONGEST_KEY = 80  # bytes; a tar header has room for 100, extension included


@dataclass(frozen=True)
class PackOptions:
    """How shards are written.

    Attributes:
        modality: what to pack; None: the source's only modality.
        shard_size: samples per shard.
        resize: largest short side of images and video in pixels; larger ones are downsized.
        quality: JPEG quality to re-encode all images with; None: bytes are kept, unless ``resize``
            changes the image.
        gop: frames between key frames; video is re-encoded as H.264. None: it is kept, unless
            ``resize`` is given.
        points: points per cloud, sampled from larger clouds and from surfaces; None: clouds keep
            all their points.
        features: ``none``, ``normals`` or ``colors`` to store beside a cloud's coordinates.
        spacing: of scans, in mm along x, y and z; (0, 0, 0): each scan keeps its own.
        voxels: type of packed scans, int16, float16 or float32; None: int16 if scans hold integers
            that fit, else float32.
        split: the split to pack; None: all splits.
        only: names of the samples to pack; None: all.
        seed: seed for shuffling the samples and sampling points; None: source order.
        seconds: limit of processor time for one sample other than an image.
        workers: processes; they do not change the result.
    """

    modality: str | None = None
    shard_size: int = 2048
    resize: int | None = None
    quality: int | None = None
    gop: int | None = None
    points: int | None = None
    features: str | None = None
    spacing: tuple[float, float, float] | None = None
    voxels: str | None = None
    split: str | None = None
    only: frozenset[str] | None = None
    seed: int | None = 0
    seconds: float = SAMPLE_SECONDS
    workers: int = 1

    def of_sample(self, modality: str, split: str, key: str) -> dict[str, Any]:
        """The options that a modality's codec gets for one sample."""
        given = {name: getattr(self, name) for name in modalities.get(modality).pack_options}
        if "resize" in given:
            given["short_side"] = given.pop("resize")
        if "features" in given:
            given["features"] = self.features or "none"
        if "seed" in given:
            given["seed"] = key_of(self.seed or 0, modality, split, key)
        return given

    def check(self, modality: str) -> None:
        """Raise a ``UserError`` for an option that does not apply to a modality."""
        takers: dict[str, list[str]] = {}
        for known in modalities.names():
            for name in modalities.get(known).pack_options:
                takers.setdefault(name, []).append(known)
        del takers["seed"]  # it also shuffles samples, so it applies to every modality
        for name, fits in sorted(takers.items()):
            if getattr(self, name) is not None and modality not in fits:
                raise UserError(f"--{name} is for {' and '.join(fits)}; this is {modality}")


@dataclass
class Packed:
    """The result of packing.

    Attributes:
        modality: modality of all samples.
        shards: shards in order.
        damaged: corrupt samples, which were left out.
        kept: shards taken over from an interrupted run.
        unused: content of the source that is not stored; reported as packing starts.
        dropped: parts of samples that were dropped.
    """

    modality: str
    shards: list[ShardEntry] = field(default_factory=list)
    damaged: list[Damage] = field(default_factory=list)
    kept: int = 0
    unused: Unused = field(default_factory=Unused)
    dropped: Unused = field(default_factory=Unused)

    def as_json(self) -> dict[str, Any]:
        unused = Unused()
        for some in (self.unused, self.dropped):
            unused.update(some)
        return {
            "modality": self.modality,
            "shards": [asdict(entry) for entry in self.shards],
            "samples": sum(entry.samples for entry in self.shards),
            "bytes": sum(entry.bytes for entry in self.shards),
            "damaged": [vars(item) for item in self.damaged],
            "kept": self.kept,
            "unused": unused.as_json(),
        }


@dataclass(frozen=True)
class _Job:
    """One shard to write; ``keys`` are its sample names in order."""

    source: Source
    modality: str
    positions: np.ndarray
    keys: list[str]
    place: Workplace
    name: str
    options: PackOptions


def listed(path: Path) -> frozenset[str]:
    """Sample names from a file: one per line, or the column ``key`` of a CSV file.

    Raises:
        UserError: the file cannot be read, or names no sample.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--only {path}: {getattr(error, 'strerror', None) or error}") from error
    column = rows[0].index("key") if rows and "key" in rows[0] else None
    if column is None:
        found = frozenset(path.read_text(encoding="utf-8").splitlines()) - {""}
    else:
        found = frozenset(row[column] for row in rows[1:] if len(row) > column)
    if not found:
        raise UserError(f"--only {path}: no sample is named there")
    return found


def pack(
    spec: str,
    out: Path,
    options: PackOptions | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    resume: bool = False,
) -> Packed:
    """Write shards, their indexes and ``index.json``.

    Every sample is decoded once, so all packed samples are readable; corrupt ones are left out.
    The shards appear in ``out`` when all are written; until then they are in a hidden subfolder.

    Args:
        spec: any source, see :func:`open_source`.
        out: a folder without shards, created if needed.
        progress: called with (samples done, samples in total).
        resume: continue an interrupted run with the same input and options.

    Raises:
        UserError: ``out`` holds shards already, the source or split does not exist, an option does
            not apply to the modality, or ``resume`` with other input or options.
        DataError: too many corrupt samples.
    """
    options = options or PackOptions()
    modality = only_modality(spec, options.modality)
    options.check(modality)
    names = [options.split] if options.split else stored_splits(spec, modality)
    sources = [open_stored(spec, name, modality) for name in names]
    for source in sources:
        source.unused.warn(spec)
    place = Workplace(out)
    ready = place.begin(plan_of(sources, modality, _result_options(options)), resume=resume)
    if ready is not None:
        return Packed(modality, ready.shards, place.left_out(), kept=len(ready.shards))
    jobs = [job for source in sources for job in _jobs(source, modality, place, options)]
    try:
        result = _write_all(jobs, modality, place, options.workers, progress)
    except DataError:
        place.discard_empty()
        raise
    for source in sources:
        result.unused.update(source.unused)
    if not result.shards:
        place.discard_empty()
        named = (
            "" if options.only is None else f", or none of the {len(options.only)} named is in it"
        )
        raise DataError(f"{spec}: nothing to pack, no sample can be read{named}")
    place.publish(
        Manifest(
            modality=modality,
            extensions=place.extensions(),
            classes=sources[0].classes,
            shards=result.shards,
            facts=_facts(place, result.shards),
        ),
        result.damaged,
    )
    return result


def _result_options(options: PackOptions) -> dict[str, Any]:
    """The options that change the bytes written."""
    without = ("workers", "seconds", "modality")
    found = {name: value for name, value in asdict(options).items() if name not in without}
    if options.only is None:
        del found["only"]
    else:
        found["only"] = hashlib.sha256("\n".join(sorted(options.only)).encode()).hexdigest()
    return found


def _facts(place: Workplace, shards: list[ShardEntry]) -> dict[str, ShardFacts]:
    names = [entry.name for entry in shards]
    return facts_by_split(names, (open_index(place.path(name)) for name in names))


def _write_all(
    jobs: list[_Job],
    modality: str,
    place: Workplace,
    workers: int,
    progress: Callable[[int, int], None],
) -> Packed:
    total = sum(len(job.positions) for job in jobs)
    result, count, done = Packed(modality), DamageCount(total), 0
    kept = {job.name: found for job in jobs if (found := place.finished(job.name)) is not None}
    waiting = [job for job in jobs if job.name not in kept]
    result.kept = sum(found.entry is not None for found in kept.values())

    def advanced(samples: int) -> None:
        nonlocal done
        done += samples
        progress(done, total)

    advanced(sum(len(job.positions) for job in jobs if job.name in kept))
    written = each(_write, waiting, workers, advanced)
    for job in jobs:
        found = kept.get(job.name) or next(written)
        result.damaged += count.add(found.damaged)
        for item in found.unused:
            result.dropped.add(item["what"], item["first"], count=item["count"])
        if found.entry is not None:
            result.shards.append(found.entry)
    return result


def _jobs(source: Source, modality: str, place: Workplace, options: PackOptions) -> Iterator[_Job]:
    order = np.arange(len(source))
    if options.seed is not None:
        order = keyed_rng(options.seed, "pack", source.split).permutation(len(source))
    if options.only is not None:
        wanted = [source.key(*source.locate(int(p))) in options.only for p in order]
        order = order[np.array(wanted, dtype=bool)]
    used: set[str] = set()
    for number, start in enumerate(range(0, len(order), options.shard_size)):
        positions = order[start : start + options.shard_size]
        keys = [
            _member_key(source.key(*source.locate(int(p))), start + i, used)
            for i, p in enumerate(positions)
        ]
        name = f"{source.split}-{number:06d}.tar"
        yield _Job(source, modality, positions, keys, place, name, options)


def _member_key(key: str, number: int, used: set[str]) -> str:
    """A key valid in tar and WebDataset: short, unique, no dot in the base name."""
    folder, slash, base = key.removesuffix(".gz").rpartition("/")
    stem, dot, extension = base.rpartition(".")
    name = folder + slash + (stem if dot else extension).replace(".", "_")
    encoded = name.encode("utf-8", "surrogateescape")
    plain = name.isprintable() and not name.startswith(("/", ".", "__")) and "/." not in name
    if len(encoded) > _LONGEST_KEY or not plain or not (stem or extension) or name in used:
        name = f"{number:09d}"
    used.add(name)
    return name


def _write(job: _Job) -> Finished:
    """Write one shard, its index, and the record that it is finished."""
    os.environ.setdefault("WDS_SECURE", "1")
    from webdataset import TarWriter

    damaged: list[Damage] = []
    unused = Unused()
    extensions: set[str] = set()
    coder = codec(job.source, job.modality, job.options.seconds)
    path = job.place.path(job.name)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            # Fixed times and owners, so that equal input gives equal bytes.
            with TarWriter(file, user="", group="", mtime=0, encoder=False) as tar:
                for position, key in zip(job.positions, job.keys, strict=True):
                    address = job.source.locate(int(position))
                    try:
                        with noticing() as noticed:
                            members = _members(job, coder, address)
                    except CorruptSample as fault:
                        damaged.append(job.source.damage(*address, fault))
                    else:
                        for what in noticed:
                            unused.add(what, [job.source.key(*address)])
                        tar.write({"__key__": key, **members})
                        extensions.update(members)
                    advance()
            file.flush()
            os.fsync(file.fileno())
        entry = None
        if extensions:
            temporary.replace(path)
            _, entry = index_shard(path)
        finished = Finished(entry, sorted(extensions), damaged, unused.as_json())
        return job.place.record(job.name, finished)
    except OSError as fault:
        raise UserError(f"cannot write {path}: {fault.strerror or fault}") from None
    finally:
        temporary.unlink(missing_ok=True)


def _members(job: _Job, coder: Codec, address: tuple[int, int]) -> dict[str, bytes]:
    sample = job.source.read(*address)
    options = job.options.of_sample(job.modality, job.source.split, sample.key)
    members = coder.store(job.source, sample, options)
    if sample.label is not None:
        members["cls"] = str(sample.label).encode()
    return members
