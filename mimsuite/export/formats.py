"""The formats that a model is written in, and the rules for the files they become."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from mimsuite.checkpoints.opened import Opened
from mimsuite.errors import UserError
from mimsuite.export.to_files import refuse_reference, write_reference, write_safetensors
from mimsuite.export.to_huggingface import FILES as HUGGINGFACE_FILES
from mimsuite.export.to_huggingface import refuse_huggingface, write_huggingface
from mimsuite.export.to_onnx import refuse_onnx, write_onnx
from mimsuite.export.to_timm import refuse_timm, write_timm
from mimsuite.export.vitdet import refuse_vitdet, write_vitdet
from mimsuite.paths import expand_path


@dataclass(frozen=True)
class Format:
    """How a format is written.

    Attributes:
        write: writes into a fresh place and returns lines on how to use the result, in which PATH
            stands for it.
        refuse: says why a model has no such form, ``None`` where it has.
        suffixes: that its file may have; empty for a folder.
        files: what its folder holds.
    """

    write: Callable[[Opened, Path], list[str]]
    refuse: Callable[[Opened], str | None]
    suffixes: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


def _never(opened: Opened) -> None:
    return None


FORMATS: dict[str, Format] = {
    "timm": Format(write_timm, refuse_timm, (".safetensors",)),
    "hf": Format(write_huggingface, refuse_huggingface, files=HUGGINGFACE_FILES),
    "safetensors": Format(write_safetensors, _never, (".safetensors",)),
    "onnx": Format(write_onnx, refuse_onnx, (".onnx",)),
    "reference": Format(write_reference, refuse_reference, (".pth", ".safetensors")),
    "vitdet": Format(write_vitdet, refuse_vitdet, (".pth", ".safetensors")),
}


def formats_of(opened: Opened) -> list[str]:
    """The formats that a model can be written in."""
    return [name for name, form in FORMATS.items() if form.refuse(opened) is None]


def export(opened: Opened, name: str, out: str | Path, *, force: bool = False) -> list[str]:
    """Write a model in a format.

    The result appears under its name only once it is whole; a failure leaves what was there.

    Args:
        opened: the model.
        name: a key of :data:`FORMATS`.
        out: file, or folder for ``hf``; missing parents are made.
        force: replace an existing result.

    Returns:
        lines for people on how to use it.

    Raises:
        UserError: unknown format, wrong suffix, ``out`` exists, cannot be written, or a model that
            the format cannot hold.
        MimsuiteError: what was written computes something else.
    """
    form = FORMATS.get(name)
    if form is None:
        raise UserError(f"--format {name}: expected one of {', '.join(FORMATS)}")
    if (why := form.refuse(opened)) is not None:
        others = formats_of(opened)
        raise UserError(f"--format {name}: {why}; this model has {', '.join(others)}")
    out = check_out(out, form, name, force=force)
    lines = _write_whole(form, partial(form.write, opened), out)
    return [line.replace("PATH", repr(str(out))) for line in lines]


def save_tensors(tensors: dict[str, Tensor], out: str | Path, *, force: bool = False) -> None:
    """Write tensors as a ``.safetensors`` file, by the rules of :func:`export`.

    Raises:
        UserError: wrong suffix, ``out`` exists or cannot be written.
    """
    form = FORMATS["safetensors"]

    def write(path: Path) -> list[str]:
        save_file(tensors, path)
        return []

    _write_whole(form, write, check_out(out, form, "safetensors", force=force))


def default_out(model: str | Path, name: str) -> Path:
    """Where a format goes when nobody says: into the run, else into the working directory."""
    model = Path(expand_path(str(model))).resolve()
    stem = model.name if model.is_dir() else model.stem
    suffix = FORMATS[name].suffixes[0] if FORMATS[name].suffixes else ""
    folder = model / "export" if (model / "config.yaml").is_file() else Path()
    return folder / f"{stem}-{name}{suffix}"


def check_out(out: str | Path, form: Format, name: str, *, force: bool) -> Path:
    """The output path, if ``form`` may be written there.

    Raises:
        UserError: wrong suffix, something is there already, or a folder that is not an export.
    """
    out = Path(expand_path(str(out)))
    if form.suffixes and out.is_dir():
        raise UserError(
            f"{out} is a folder: give a file, such as {out / 'model'}{form.suffixes[0]}"
        )
    if form.suffixes and out.suffix not in form.suffixes:
        raise UserError(f"--out {out}: --format {name} is written as {' or '.join(form.suffixes)}")
    if not form.suffixes and out.is_file():
        raise UserError(f"{out} is a file: --format {name} is written as a folder")
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return out
    if not force:
        raise UserError(f"{out} exists: give another --out, or --force to replace it")
    if out.is_dir() and (others := _others(out, form.files)):
        raise UserError(f"{out} holds other files ({others[0]}): give another --out")
    return out


def _others(folder: Path, ours: Sequence[str]) -> list[str]:
    return sorted({entry.name for entry in folder.iterdir()} - set(ours))


def _write_whole(form: Format, write: Callable[[Path], list[str]], out: Path) -> list[str]:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".mimsuite-export-", dir=out.parent) as folder:
            return _write(form, write, out, Path(folder))
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}") from error


def _write(form: Format, write: Callable[[Path], list[str]], out: Path, hidden: Path) -> list[str]:
    """Write into a hidden folder on the same disk, then rename."""
    if form.suffixes:
        whole = hidden / out.name
        lines = write(whole)
        _usual_permissions(hidden)
        os.replace(whole, out)
        return lines
    whole = hidden / "folder"
    whole.mkdir()
    lines = write(whole)
    _usual_permissions(hidden)
    if out.is_dir():
        shutil.rmtree(out)
    os.replace(whole, out)
    return lines


def _usual_permissions(folder: Path) -> None:
    """Files as any program leaves them: safetensors makes its own readable to the owner only."""
    mask = os.umask(0)
    os.umask(mask)
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o666 & ~mask)
