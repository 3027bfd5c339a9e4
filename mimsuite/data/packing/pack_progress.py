"""Progress of ``data pack`` on disk, so that an interrupted run can continue.

Finished shards wait in ``OUT/.pack`` with a record each. ``index.json`` is published first, then
all shards together, so a reader of an incomplete set gets an error. ``pack.json`` stays beside the
shards and names the samples that were left out.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mimsuite.data.damage import Damage
from mimsuite.data.shards import Manifest
from mimsuite.data.shards.manifest import ENTRY, FILE_NAME, ShardEntry, sha256_of
from mimsuite.data.source import Source
from mimsuite.errors import UserError
from mimsuite.files import write_atomic

PACK_FILE = "pack.json"
_FOLDER = ".pack"
_PLAN = "plan"
_VERSION = 2  # raise it whenever a change of the encoders changes the bytes


@dataclass(frozen=True)
class Finished:
    """A finished shard; ``entry`` is None if none of its samples could be read, ``unused`` is the
    :meth:`Unused.as_json` of what its samples lost."""

    entry: ShardEntry | None
    extensions: list[str]
    damaged: list[Damage]
    unused: list[dict[str, Any]]


def plan_of(sources: list[Source], modality: str, options: dict[str, Any]) -> str:
    """A checksum of everything the shards depend on: options, sample names and sample sizes."""
    digest = hashlib.sha256(repr((_VERSION, modality, sorted(options.items()))).encode())
    for source in sources:
        digest.update(repr((source.split, source.classes, source.labels().tolist())).encode())
        for position in range(len(source)):
            address = source.locate(position)
            sample = f"{source.key(*address)}\0{source.sample_bytes(*address)}\n"
            digest.update(sample.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


@dataclass(frozen=True)
class Workplace:
    """The output folder of a run of ``data pack``."""

    out: Path

    @property
    def folder(self) -> Path:
        """The folder of shards until all are written."""
        return self.out / _FOLDER

    def begin(self, plan: str, *, resume: bool) -> Manifest | None:
        """Prepare the folder; returns the manifest if the set is already finished.

        Raises:
            UserError: it has shards already, or a run with other input or options started here.
        """
        begun = self._begun()
        if begun is not None and not resume:
            what = "shards already" if self._published() else "an interrupted run"
            raise UserError(f"{self.out} holds {what}: name another folder, or use --resume")
        if begun is None and (self._published() or any(self.out.glob("*.tar"))):
            raise UserError(f"{self.out} holds shards already: name another folder, or remove them")
        if begun is None and self.out.is_dir() and any(self.out.iterdir()):
            raise UserError(f"{self.out} is there already and not empty: name a new folder")
        if begun is not None and begun != plan:
            raise UserError(
                f"{self.out} was packed from other input or with other options: repeat those, or "
                "name another folder"
            )
        if begun is not None and self._published():
            manifest = Manifest.read(self.out)
            assert manifest is not None
            self._move(manifest)
            return manifest
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for unfinished in self.folder.glob(".*.tmp"):
                unfinished.unlink()
            write_atomic(self.folder / _PLAN, plan)
        except OSError as fault:
            raise UserError(f"cannot make the folder {self.out}: {fault.strerror}") from None
        return None

    def path(self, name: str) -> Path:
        """The path to write a shard to."""
        return self.folder / name

    def record(self, name: str, finished: Finished) -> Finished:
        """Record that a shard is finished."""
        content = {
            "entry": finished.entry and asdict(finished.entry),
            "extensions": finished.extensions,
            "damaged": [vars(item) for item in finished.damaged],
            "unused": finished.unused,
        }
        write_atomic(self._record(name), json.dumps(content))
        return finished

    def finished(self, name: str) -> Finished | None:
        """The record of a shard, if it exists and matches the shard."""
        try:
            content = json.loads(self._record(name).read_bytes())
            entry = content["entry"] and ENTRY.validate_python(content["entry"])
            whole = entry is None or (
                self.path(name).with_name(f"{name}.idx").is_file()
                and sha256_of(self.path(name)) == entry.sha256
            )
            damaged = [Damage(**item) for item in content["damaged"]]
            done = Finished(entry, content["extensions"], damaged, content["unused"])
            return done if whole else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def discard_empty(self) -> None:
        """Remove the traces of a run that wrote no shard."""
        if any(self.folder.glob("*.tar")):
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):  # the folder holds other files
            self.out.rmdir()

    def extensions(self) -> list[str]:
        """The extensions in all finished shards."""
        records = [json.loads(path.read_bytes()) for path in self.folder.glob("*.json")]
        return sorted({extension for record in records for extension in record["extensions"]})

    def publish(self, manifest: Manifest, damaged: list[Damage]) -> None:
        """Move the finished set to its folder."""
        left_out = [
            {"key": item.key, "kind": item.kind, "message": item.message} for item in damaged
        ]
        content = {"version": _VERSION, "plan": self._begun(), "left_out": left_out}
        try:
            write_atomic(self.out / PACK_FILE, json.dumps(content, indent=1) + "\n")
            manifest.write(self.out)
            self._move(manifest)
        except OSError as fault:
            raise UserError(f"cannot write to {self.out}: {fault.strerror or fault}") from None

    def left_out(self) -> list[Damage]:
        """Corrupt samples that a finished set lacks."""
        content = json.loads((self.out / PACK_FILE).read_bytes())
        return [Damage(shard=str(self.out), **item) for item in content["left_out"]]

    def _move(self, manifest: Manifest) -> None:
        for entry in manifest.shards:
            for name in (entry.name, f"{entry.name}.idx"):
                if (self.folder / name).exists():
                    os.replace(self.folder / name, self.out / name)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _published(self) -> bool:
        return (self.out / FILE_NAME).exists()

    def _begun(self) -> str | None:
        """The plan of the run that was started here, if any."""
        try:
            if (self.folder / _PLAN).exists():
                return (self.folder / _PLAN).read_text()
            if self._published():
                return str(json.loads((self.out / PACK_FILE).read_bytes())["plan"])
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return None

    def _record(self, name: str) -> Path:
        return self.folder / f"{name}.json"
