"""Verify a whole set: sizes, checksums, counts, and a decode of every sample."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mimsuite.data import modalities
from mimsuite.data.damage import CorruptSample
from mimsuite.data.decoder import Channels, Decoder
from mimsuite.data.packing.codecs import SAMPLE_SECONDS, codec
from mimsuite.data.parallel import advance, each
from mimsuite.data.shards import Manifest, TarSource, holds_shards, open_index
from mimsuite.data.shards.facts import facts_of
from mimsuite.data.shards.manifest import FILE_NAME, sha256_of
from mimsuite.data.shards.names import expand
from mimsuite.data.shards.scan import Scan, scan
from mimsuite.data.shards.sets import kind_of
from mimsuite.data.source import Source
from mimsuite.data.sources.stored import (
    is_remote,
    local_shards,
    modalities_in,
    open_stored,
    stored_decoder,
    stored_splits,
)
from mimsuite.data.stores import LocalShard
from mimsuite.data.unused import Unused, noticing
from mimsuite.errors import DataError

_PIECE = 256  # samples per job, for sets of files


@dataclass
class Report:
    """The result for one shard, or for some samples of a source without shards.

    Attributes:
        name: name of the shard.
        samples: number of samples found.
        problems: one line per problem; empty: none.
        unused: content that is not a sample, in the form of :meth:`Unused.as_json`.
    """

    name: str
    samples: int = 0
    problems: list[str] = field(default_factory=list)
    unused: list[dict[str, Any]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "sound": not self.problems}


@dataclass(frozen=True)
class _How:
    """How to decode samples; sent to worker processes."""

    modality: str
    channels: Channels
    seconds: float

    def decoder(self) -> Decoder:
        return stored_decoder(self.modality, self.channels)


def verify(
    spec: str,
    *,
    modality: str | None = None,
    channels: Channels = "native",
    seconds: float = SAMPLE_SECONDS,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Report]:
    """Check every shard, or every file of a source without shards.

    Args:
        modality: the modality to verify; None: all that the source has.
        channels: decode images as training does with this ``data.channels``.
        seconds: limit of processor time for one sample other than an image.
        progress: called with (samples done, samples in total); a total of 0 means unknown.

    Raises:
        UserError, DataError: there is nothing to verify.
    """
    wanted = [modality] if modality else list(modalities_in(spec))
    hows = [_How(modalities.get(name).name, channels, seconds) for name in wanted]
    if not _is_shards(spec):
        return [report for how in hows for report in _files(spec, how, workers, progress)]
    return _shards(spec, hows, workers, progress)


def _is_shards(spec: str) -> bool:
    path = Path(spec)
    if path.is_dir():
        return holds_shards(path)
    return spec.endswith(".tar") and not is_remote(spec)


# --- shards ---


def _shards(
    spec: str, hows: list[_How], workers: int, progress: Callable[[int, int], None]
) -> list[Report]:
    present, missing = _listed(spec)
    total = sum(_expected(path) for path in present)
    done = 0

    def advanced(samples: int) -> None:
        nonlocal done
        done += samples
        progress(min(done, total), total)

    return [*each(_Shard(hows), present, workers, advanced), *missing]


def _listed(spec: str) -> tuple[list[Path], list[Report]]:
    """Existing shards, and a report for each missing one."""
    present = local_shards(spec)
    wanted = [] if Path(spec).exists() else [Path(str(place)) for place in expand(spec)]
    missing = [Report(path.name, 0, ["missing"]) for path in wanted if path not in present]
    here = {path.name for path in present}
    if not Path(spec).is_dir():
        return present, missing
    for place in sorted({Path(spec), *(path.parent for path in present)}):
        try:
            manifest = Manifest.read(place)
        except DataError as fault:
            missing.append(Report(FILE_NAME, 0, [str(fault)]))
            continue
        for entry in manifest.shards if manifest else ():
            if entry.name not in here:
                missing.append(Report(entry.name, 0, [f"missing, though {FILE_NAME} lists it"]))
    return present, missing


def _expected(path: Path) -> int:
    """The expected number of samples in a shard; 0 if unknown."""
    try:
        manifest = Manifest.read(path.parent)
    except DataError:
        return 0
    entry = manifest.by_name.get(path.name) if manifest else None
    return entry.samples if entry else 0


@dataclass(frozen=True)
class _Shard:
    """Checks one shard; an object, so that it can be sent to a worker process."""

    hows: list[_How]

    def __call__(self, path: Path) -> Report:
        report = Report(path.name)
        try:
            found = scan(path)
        except DataError as fault:
            report.problems.append(str(fault))
            advance(_expected(path))
            return report
        report.samples = len(found.keys)
        try:
            report.problems += _compare(path, len(found.keys))
            dropped = Unused()
            for how in self.hows:
                report.problems += self._decode(path, how, found, report, dropped)
        except DataError as fault:  # the shard as a whole is damaged: its samples have moved
            report.problems.append(str(fault))
            advance(_expected(path))
        return report

    def _positions(self, source: TarSource, found: Scan, how: _How) -> np.ndarray:
        """Positions of the samples of a modality; all samples if the set has only one modality."""
        if len(self.hows) == 1 or len(source) != len(found.keys):
            return np.arange(len(source))
        known = modalities.get(how.modality).extensions
        wanted = [n for n, name in enumerate(found.extensions) if name.rpartition(".")[2] in known]
        return np.unique(found.members["sample"][np.isin(found.members["extension"], wanted)])

    def _decode(
        self, path: Path, how: _How, found: Scan, report: Report, dropped: Unused
    ) -> list[str]:
        """Problems of the samples of a modality; adds what their decoders drop to ``dropped``."""
        header = open_index(path)
        manifest = _manifest(path)
        decoder = how.decoder()
        facts = facts_of([header])
        source = kind_of(facts, decoder)(
            [LocalShard(path)],
            [header],
            facts,
            name=path.name,
            split="train",
            key_split=None,
            classes=(manifest and manifest.classes) or header.classes or header.label_names,
            decoder=decoder,
            verify="crc",
        )
        report.samples = max(report.samples, len(source))
        problems, more = _decode_all(source, how, self._positions(source, found, how))
        dropped.update(more)
        unused = Unused()
        unused.update(source.unused)
        unused.update(dropped)
        report.unused = unused.as_json()
        return problems


def _compare(path: Path, samples: int) -> list[str]:
    manifest = _manifest(path)
    if manifest is None:
        return []
    manifest.check(path, samples=samples)
    same = sha256_of(path) == manifest.by_name[path.name].sha256
    return [] if same else [f"SHA-256 differs from {FILE_NAME}"]


def _manifest(path: Path) -> Manifest | None:
    """The manifest beside a shard; None if it is damaged, which is reported elsewhere."""
    try:
        return Manifest.read(path.parent)
    except DataError:
        return None


# --- samples ---


def _decode_all(source: Source, how: _How, positions: np.ndarray) -> tuple[list[str], Unused]:
    """Problems, and what the decoders drop."""
    problems, unused = [], Unused()
    coder = codec(source, how.modality, how.seconds)
    for position in positions:
        address = source.locate(int(position))
        try:
            with noticing() as noticed:
                coder.facts(source, source.read(*address))
            for what in noticed:
                unused.add(what, [source.key(*address)])
        except CorruptSample as fault:
            problems.append(f"{source.key(*address)}: {fault.kind}: {fault}")
        advance()
    return problems, unused


@dataclass(frozen=True)
class _Samples:
    """Checks some samples of a source."""

    source: Source
    how: _How

    def __call__(self, positions: np.ndarray) -> tuple[list[str], Unused]:
        return _decode_all(self.source, self.how, positions)


def _files(
    spec: str, how: _How, workers: int, progress: Callable[[int, int], None]
) -> list[Report]:
    reports = []
    for split in stored_splits(spec, how.modality, channels=how.channels):
        source = open_stored(spec, split, how.modality, channels=how.channels)
        report = Report(f"{spec} {split}", len(source))
        unused = Unused()
        unused.update(source.unused)
        pieces = np.array_split(np.arange(len(source)), -(-len(source) // _PIECE))
        done = 0

        def advanced(samples: int, total: int = len(source)) -> None:
            nonlocal done
            done += samples
            progress(done, total)

        for problems, dropped in each(_Samples(source, how), pieces, workers, advanced):
            report.problems += problems
            unused.update(dropped)
        report.unused = unused.as_json()
        reports.append(report)
    return reports
