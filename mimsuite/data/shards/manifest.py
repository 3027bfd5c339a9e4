"""``index.json``: which shards make a set, and the size, samples and SHA-256 of each."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from mimsuite.errors import DataError
from mimsuite.files import write_atomic

FILE_NAME = "index.json"


class ShardEntry(BaseModel):
    """One shard of the set, by its file name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    bytes: int = Field(ge=0)
    samples: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")

    @field_validator("name")
    @classmethod
    def _plain(cls, name: str) -> str:
        if Path(name).name != name or "\\" in name or name.startswith("."):
            raise ValueError("must be a file name, without a folder")
        return name


class Manifest(BaseModel):
    """The content of ``index.json``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    modality: str = "image"
    extensions: list[str]
    classes: list[str] | None = None
    shards: list[ShardEntry]

    @property
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
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as fault:
            raise DataError(f"cannot read {path}: {fault.strerror}") from None
        return cls.parse(content, str(path))

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
        write_atomic(folder / FILE_NAME, self.model_dump_json(indent=1) + "\n")

    def check(self, shard: Path, *, samples: int | None = None) -> None:
        """Compare a shard with its entry.

        Raises:
            DataError: not listed, or another size or number of samples.
        """
        entry = self.by_name.get(shard.name)
        if entry is None:
            raise DataError(f"shard {shard} is not listed in {FILE_NAME} beside it")
        size = shard.stat().st_size
        if size != entry.bytes:
            raise DataError(f"shard {shard} has {size} bytes, {FILE_NAME} says {entry.bytes}")
        if samples is not None and samples != entry.samples:
            raise DataError(
                f"shard {shard} has {samples} samples, {FILE_NAME} says {entry.samples}"
            )


def entry_of(shard: Path, samples: int) -> ShardEntry:
    """Measure a shard; reads all of it."""
    return ShardEntry(
        name=shard.name, bytes=shard.stat().st_size, samples=samples, sha256=sha256_of(shard)
    )


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
