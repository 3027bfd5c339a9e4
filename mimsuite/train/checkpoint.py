"""Checkpoints: safetensors and JSON under a hashed manifest, visible only once they are whole.

``checkpoints/step-00001234/`` holds ``model.safetensors``, ``optim.safetensors``,
``ema.safetensors`` when used, ``rank-00000.safetensors`` of each rank (generator states),
``state.json`` and, written last, ``MANIFEST.json`` with the size and sha256 of each. Tensors are
whole, however training was distributed, so a checkpoint of any layout can be read by any other;
sharded state above ``checkpoint.gather_gib`` is in parts instead
(:mod:`mimsuite.train.sharded_files`). There is no pickle anywhere.

A save goes to a hidden folder first; every file is synced, then the folder, then it is renamed to
its final name and the parent is synced. So a final name always means a whole checkpoint, whenever
the process dies. What the disk damages later is found by the digests: :func:`newest` goes back to
the newest checkpoint that verifies and names those it passed over.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from mimsuite.errors import UserError
from mimsuite.files import write_synced
from mimsuite.train import sharded_files
from mimsuite.train.stored import Stored
from mimsuite.train.tensor_files import write_tensors

FORMAT = 1
_SPACE_FACTOR = 1.5  # free space needed to begin a checkpoint, in sizes of the last one


@dataclass(frozen=True)
class CheckpointState:
    """Everything a run needs to go on, and everything a reader needs to rebuild the model.

    Attributes:
        step: optimizer steps done.
        document: the resolved recipe, as in ``config.yaml``.
        model, optim, ema: tensors by name; ``ema`` is empty where it is not used.
        ranks: generator states of each rank.
        facts: JSON-able rest: optimizer hyperparameters, loss scaler, running sums, versions.
        fixed: names of ``model`` that change only where a step is applied; not stored.
    """

    step: int
    document: dict[str, Any]
    model: Mapping[str, Tensor]
    optim: Mapping[str, Tensor] = field(default_factory=dict)
    ema: Mapping[str, Tensor] = field(default_factory=dict)
    ranks: Sequence[Mapping[str, Tensor]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    fixed: Collection[str] = ()


def save(root: Path, state: CheckpointState, reports: Sequence[str] = ()) -> Path:
    """Write ``root/step-XXXXXXXX`` and return it.

    Args:
        reports: of the ranks that have written their parts to :func:`folder_of_parts`; the
            tensors of ``state`` are then left out.

    Raises:
        OSError: the disk is full or read-only; nothing is left behind and older ones stay.
    """
    root.mkdir(parents=True, exist_ok=True)
    final = root / f"step-{state.step:08d}"
    hidden = root / f".tmp-{final.name}-{uuid.uuid4().hex[:8]}"
    hidden = folder_of_parts(root, state.step) if reports else hidden
    try:
        if not reports:
            need_space(root)
        hidden.mkdir(exist_ok=bool(reports))
        groups: dict[str, Mapping[str, Tensor]] = {
            f"rank-{rank:05d}": own for rank, own in enumerate(state.ranks)
        }
        files: dict[str, Any] = {}
        if reports:
            files, found = sharded_files.index(list(reports))
            files[sharded_files.INDEX] = write_synced(hidden / sharded_files.INDEX, _json(found))
        else:
            groups = {"model": state.model, "optim": state.optim, "ema": state.ema, **groups}
        for name, tensors in groups.items():
            if tensors:
                file = f"{name}.safetensors"
                files[file] = write_tensors(hidden / file, tensors)
        facts = {"step": state.step, "recipe": state.document, **state.facts}
        files["state.json"] = write_synced(hidden / "state.json", _json(facts))
        manifest = {"format": FORMAT, "step": state.step, "files": files}
        write_synced(hidden / "MANIFEST.json", _json(manifest))
        _sync_folder(hidden)
        if final.exists():  # the same step again, after a resume from an older one
            remove(final)
        os.rename(hidden, final)
        _sync_folder(root)
    except BaseException:
        shutil.rmtree(hidden, ignore_errors=True)
        raise
    return final


def folder_of_parts(root: Path, step: int) -> Path:
    """Where ranks write their parts before the first rank puts the rest beside them."""
    return root / f".tmp-step-{step:08d}-parts"


def clean(root: Path) -> None:
    """Remove what an interrupted save or removal left behind."""
    for leftover in [*root.glob(".tmp-*"), *root.glob(".del-*")]:
        shutil.rmtree(leftover, ignore_errors=True)


def damage(path: Path, *, sizes_only: bool = False) -> str | None:
    """Why a checkpoint cannot be trusted, or ``None`` where every byte is as written.

    Args:
        sizes_only: look at no content: cheap, and finds what is missing or cut off.
    """
    try:
        manifest = json.loads((path / "MANIFEST.json").read_text())
        if manifest["format"] > FORMAT:
            return f"format {manifest['format']} is newer than this version reads ({FORMAT})"
        for name, expected in manifest["files"].items():
            size = (path / name).stat().st_size
            if size != expected["bytes"]:
                return f"{name} has {size} bytes, not {expected['bytes']}"
            if not sizes_only:
                with (path / name).open("rb") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() != expected["sha256"]:
                        return f"{name} does not match its sha256"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def newest(root: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint below a run or its ``checkpoints`` folder that verifies.

    Returns:
        it, or ``None``, and one line for each newer one that was passed over.
    """
    folder = root / "checkpoints" if (root / "checkpoints").is_dir() else root
    rejected: list[str] = []
    for path in steps(folder):
        reason = damage(path)
        if reason is None:
            return path, rejected
        rejected.append(f"{path.name}: {reason}")
    return None, rejected


def newest_before(root: Path, step: int) -> Path | None:
    """The newest checkpoint in a ``checkpoints`` folder that verifies and is older than a step."""
    older = (path for path in steps(root) if step_of(path) < step)
    return next((path for path in older if damage(path) is None), None)


def require_sound(path: Path) -> None:
    """Refuse a checkpoint that is damaged, or none at all.

    Raises:
        UserError: says what is wrong with it.
    """
    if not (path / "MANIFEST.json").exists() and not path.name.startswith("step-"):
        what = "is a run directory" if (path / "config.yaml").exists() else "is no checkpoint"
        raise UserError(f"{path} {what}: name RUN/checkpoints/step-..., or use --resume auto")
    if (reason := damage(path)) is not None:
        raise UserError(f"checkpoint {path} is damaged ({reason}): use an older one beside it")


def read(path: Path, *, verified: bool = False) -> CheckpointState:
    """Read a checkpoint folder: its tensors when they are asked for (:mod:`mimsuite.train.stored`).

    Args:
        verified: :func:`newest` has just found it sound: do not hash all of it a second time.

    Raises:
        UserError: it is damaged, or no checkpoint.
    """
    if not verified:
        require_sound(path)
    facts = json.loads((path / "state.json").read_text())

    try:
        groups = {n: Stored.of_file(path / f"{n}.safetensors") for n in ("model", "optim", "ema")}
        if (path / sharded_files.INDEX).exists():
            found = json.loads((path / sharded_files.INDEX).read_text())
            groups = {group: Stored(path, f"{group}/", files) for group, files in found.items()}
        return CheckpointState(
            step=facts.pop("step"),
            document=facts.pop("recipe"),
            ranks=_Ranks(sorted(path.glob("rank-*.safetensors"))),
            facts=facts,
            **groups,
        )
    except SafetensorError as error:
        raise UserError(f"checkpoint {path} cannot be read: {error}") from None


@dataclass(frozen=True)
class _Ranks(Sequence[Mapping[str, Tensor]]):
    """Generator states of each rank; a file is opened when its rank asks for it."""

    files: Sequence[Path]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, rank: Any) -> Any:
        return Stored.of_file(self.files[rank])


def steps(folder: Path) -> list[Path]:
    """All checkpoints of a ``checkpoints`` folder, the newest first."""
    return sorted(folder.glob("step-*"), reverse=True)


def step_of(path: Path) -> int:
    """Optimizer steps behind a checkpoint, by its name."""
    return int(path.name.removeprefix("step-"))


def remove(path: Path) -> None:
    """Rename first, so that a half-removed checkpoint never bears a final name."""
    hidden = path.with_name(f".del-{path.name}-{uuid.uuid4().hex[:8]}")
    os.rename(path, hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def need_space(root: Path) -> None:
    """Before a save.

    Raises:
        OSError: less is free than one and a half times the last checkpoint's size.
    """
    previous = steps(root)
    if not previous:
        return
    size = sum(file.stat().st_size for file in previous[0].iterdir())
    free = shutil.disk_usage(root).free
    if free < _SPACE_FACTOR * size:
        raise OSError(f"{free >> 20} MiB free in {root}, a checkpoint takes {size >> 20} MiB")


def _json(content: Any) -> bytes:
    return json.dumps(content, indent=1).encode()


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
