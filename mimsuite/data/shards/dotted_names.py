"""Tar files of pictures whose names have dots: ``2023.05.01.jpg``, ``2023.05.02.jpg``, ...

WebDataset cuts a name at its first dot, so these would be one sample with the key ``2023``.
"""

from __future__ import annotations

import re

import numpy as np

from mimsuite.data.shards.facts import ShardFacts
from mimsuite.data.shards.index import IndexHeader, ShardIndex, load_tables
from mimsuite.data.shards.scan import LABEL_EXTENSIONS
from mimsuite.data.shards.source import TarSource

_NUMBERED = re.compile(r"(?:.*\.)?\d[^.]*\.[^.]+")  # 05.01.jpg, scan.003.png, and not depth.png


class DottedTarSource(TarSource):
    """Tar shards in which each file that is decoded is a sample; its key is the whole name."""

    def key(self, shard: int, offset: int) -> str:
        opened = self._open(shard)
        member = opened.index.members[opened.payloads[offset]]
        return f"{super().key(shard, offset)}.{opened.index.extensions[member['extension']]}"

    def _count(self, header: IndexHeader) -> int:
        return len(self._samples(load_tables(header))[0])

    def _samples(self, index: ShardIndex) -> tuple[np.ndarray, np.ndarray]:
        read = [_is_read(name, self.decoder.extensions) for name in index.extensions]
        members = np.flatnonzero(np.array(read)[index.members["extension"]])
        rows = index.members["sample"][members].astype(np.int64)
        chosen = np.isin(rows, self._rows_of_split(index))
        return rows[chosen], members[chosen]


def are_dotted(facts: ShardFacts, decoded: tuple[str, ...]) -> bool:
    """Whether the dots in file names, and no samples of several files, made these keys.

    Files of a sample have the same few extensions in all samples (``depth.png``, ``rgb.png``).
    Here they hold numbers that differ from key to key, or none comes twice.

    Args:
        decoded: extensions of the files that are read.
    """
    samples = facts.samples
    if any(name in LABEL_EXTENSIONS for name in facts.counts) or facts.members <= samples:
        return False
    counts = {name: n for name, n in facts.counts.items() if _is_read(name, decoded)}
    if any(map(_NUMBERED.fullmatch, counts)):
        return samples == 1 or any(count != samples for count in counts.values())
    detailed = [count for name, count in counts.items() if "." in name]
    return 1 < samples < len(detailed) and max(detailed) == 1


def _is_read(extension: str, decoded: tuple[str, ...]) -> bool:
    return extension.rpartition(".")[2] in decoded
