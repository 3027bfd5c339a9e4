"""``index.json``: which shards make a set, and the size, samples and SHA-256 of each."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from mimsuite.data.shards.facts import ShardFacts
from mimsuite.errors import DataError
from mimsuite.files import write_atomic

FILE_NAME = "index.json"


def _plain(name: str) -> str:
    if "/" in name or "\\" in name or name.startswith(".") or not name:
        raise ValueError("must be a file name, without a folder")
    return name


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """One shard of the set, by its file name. With slots, since there may be a million."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: Annotated[str, AfterValidator(_plain)]
    bytes: Annotated[int, Field(ge=0)]
    samples: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


ENTRY = TypeAdapter(ShardEntry)


class Manifest(BaseModel):
    """The content of ``index.json``.

    Attributes:
        facts: what the indexes of the shards of each split say together, by the split that the
            names of shards tell, ``""`` where they tell none; a split may be missing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    modality: str = "image"
    extensions: list[str]
    classes: list[str] | None = None
    shards: list[ShardEntry]
    facts: dict[str, ShardFacts] = {}

    @cached_property
    def by_name(self) -> dict[str, ShardEntry]:
        return {entry.name: entry for entry in self.shards}

    @classmethod
    def read(cls, folder: Path) -> Manifest | None:
        """The manifest of a folder; None where there is none.

        Raises:
            DataError: it is there and cannot be understood.
        """
        path = folder / FILE_NAME
        try:
            now = path.stat()
            return _read(path, (now.st_ino, now.st_size, now.st_mtime_ns))
        except FileNotFoundError:
            return None
        except OSError as fault:
            raise DataError(f"cannot read {path}: {fault.strerror}") from None

    @classmethod
    def parse(cls, content: bytes, name: str) -> Manifest:
        """The manifest that a file holds.

        Args:
            name: of the file, for the error.

        Raises:
            DataError: it cannot be understood.
        """
        try:
            return cls.model_validate_json(content)
        except ValidationError as faults:
            first = faults.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise DataError(f"{name} is no shard index: {where}: {first['msg']}") from None

    def write(self, folder: Path) -> None:
        without = set() if self.facts else {"facts"}
        text = self.model_dump_json(indent=1, exclude=without)
        write_atomic(folder / FILE_NAME, text + "\n")

    def known(
        self, split: str | None, names: Sequence[str]
    ) -> tuple[ShardFacts, np.ndarray] | None:
        """What is known of all shards of a split without reading their indexes.

        Args:
            split: that the names of the shards tell.
            names: of the shards.

        Returns:
            their facts and (shards,) the samples of each; None where the facts are not listed, or
            are of other shards.
        """
        facts = self.facts.get(split or "")
        if facts is None or any(name not in self.by_name for name in names):
            return None
        counts = np.array([self.by_name[name].samples for name in names], dtype=np.int64)
        return (facts, counts) if counts.all() and counts.sum() == facts.samples else None

    def check(self, shard: Path, *, samples: int | None = None) -> None:
        """Compare a shard with its entry.

        Raises:
            DataError: not listed, or another size or number of samples.
        """
        entry = self.by_name.get(shard.name)
        if entry is None:
            raise DataError(f"shard {shard} is not listed in {FILE_NAME} beside it")
        size = Path(shard).stat().st_size  # not shard.stat(): a used path caches strings
        if size != entry.bytes:
            raise DataError(f"shard {shard} has {size} bytes, {FILE_NAME} says {entry.bytes}")
        if samples is not None and samples != entry.samples:
            raise DataError(
                f"shard {shard} has {samples} samples, {FILE_NAME} says {entry.samples}"
            )


@lru_cache(maxsize=1)  # one start asks for it several times
def _read(path: Path, state: tuple[int, ...]) -> Manifest:
    """``state`` changes with the file."""
    return Manifest.parse(path.read_bytes(), str(path))


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
