"""Look for damage in a whole set: sizes, checksums, counts, and every image decoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mimsuite.data.damage import CorruptSample
from mimsuite.data.decode import Channels, Decoder
from mimsuite.data.opening import open_source, source_splits
from mimsuite.data.parallel import each
from mimsuite.data.shards import Manifest, TarSource, find_shards, holds_shards, open_index
from mimsuite.data.shards.manifest import FILE_NAME, sha256_of
from mimsuite.data.shards.scan import scan
from mimsuite.data.source import Source
from mimsuite.errors import DataError

_PIECE = 2048  # samples of a set of files that are looked at together


@dataclass
class Report:
    """One shard, or some samples of another source.

    Attributes:
        name: of the shard.
        samples: found in it.
        problems: what is wrong, one line each; empty: sound.
    """

    name: str
    samples: int = 0
    problems: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {**vars(self), "sound": not self.problems}


def verify(
    spec: str,
    *,
    channels: Channels = "native",
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Report]:
    """Check every shard, or every file of a source that has none.

    Args:
        channels: images are decoded as training would with this ``data.channels``.
        progress: called with (reports done, reports in all).
    """
    if spec.startswith("embedded:") or not _is_shards(spec):
        return _verify_samples(spec, channels, workers, progress)
    paths = find_shards(spec)
    reports = []
    for report in each(_Shard(channels), paths, workers):
        reports.append(report)
        progress(len(reports), len(paths))
    return reports


def _is_shards(spec: str) -> bool:
    path = Path(spec)
    return holds_shards(path) if path.is_dir() else spec.endswith(".tar")


@dataclass(frozen=True)
class _Shard:
    """Checks one shard; an object, so that it can be sent to a process."""

    channels: Channels

    def __call__(self, path: Path) -> Report:
        report = Report(path.name)
        try:
            found = scan(path)
        except DataError as fault:
            report.problems.append(str(fault))
            return report
        report.samples = len(found.keys)
        try:
            _compare(path, len(found.keys), report)
            header = open_index(path)
            source = TarSource(
                [path],
                [header],
                name=path.name,
                split="train",
                key_split=None,
                classes=_classes(path) or found.classes or found.label_names,
                decoder=Decoder(self.channels),
                verify="crc",
            )
            report.problems += _decode_all(source, np.arange(len(source)))
        except DataError as fault:
            report.problems.append(str(fault))
        return report


def _compare(path: Path, samples: int, report: Report) -> None:
    manifest = Manifest.read(path.parent)
    if manifest is None:
        return
    manifest.check(path, samples=samples)
    if sha256_of(path) != manifest.by_name[path.name].sha256:
        report.problems.append(f"SHA-256 is not the one of {FILE_NAME}")


def _classes(path: Path) -> list[str] | None:
    manifest = Manifest.read(path.parent)
    return None if manifest is None else manifest.classes


def _decode_all(source: Source, positions: np.ndarray) -> list[str]:
    problems = []
    for position in positions:
        address = source.locate(int(position))
        try:
            source.decode(source.read(*address))
        except CorruptSample as fault:
            problems.append(f"{source.key(*address)}: {fault.kind}: {fault}")
    return problems


@dataclass(frozen=True)
class _Samples:
    """Decodes some samples of a source."""

    source: Source

    def __call__(self, positions: np.ndarray) -> list[str]:
        return _decode_all(self.source, positions)


def _verify_samples(
    spec: str, channels: Channels, workers: int, progress: Callable[[int, int], None]
) -> list[Report]:
    reports = []
    for split in source_splits(spec, channels=channels):
        source = open_source(spec, split, channels=channels)
        report = Report(f"{spec} {split}", len(source))
        pieces = np.array_split(np.arange(len(source)), -(-len(source) // _PIECE))
        for number, problems in enumerate(each(_Samples(source), pieces, workers)):
            report.problems += problems
            progress(number + 1, len(pieces))
        reports.append(report)
    return reports
