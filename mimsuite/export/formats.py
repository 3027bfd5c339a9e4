"""The export formats of a model, and the rules for their output files."""

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
    """An export format.

    Attributes:
        write: writes to a new path and returns lines on how to use the result, with PATH in place
            of that path.
        refuse: reason why a model cannot be written in this format, ``None`` where it can.
        suffixes: allowed suffixes of the file; empty for a folder.
        files: names of the files in the folder.
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

    The result appears under its name only when complete; a failure leaves an existing result
    unchanged.

    Args:
        opened: the model.
        name: a key of :data:`FORMATS`.
        out: file, or folder for ``hf``; missing parents are created.
        force: replace an existing result.

    Returns:
        lines to print on how to use the result.

    Raises:
        UserError: unknown format or suffix, ``out`` exists or is not writable, or the format cannot
            hold the model.
        MimsuiteError: the written model computes something else.
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
    """Default output path of a format: in the run directory, else in the working directory."""
    model = Path(expand_path(str(model))).resolve()
    stem = model.name if model.is_dir() else model.stem
    suffix = FORMATS[name].suffixes[0] if FORMATS[name].suffixes else ""
    folder = model / "export" if (model / "config.yaml").is_file() else Path()
    return folder / f"{stem}-{name}{suffix}"


def check_out(out: str | Path, form: Format, name: str, *, force: bool) -> Path:
    """Validate and expand the output path of a format.

    Raises:
        UserError: the suffix is wrong, the path exists, or it is a folder with other files.
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
    """Write to a hidden folder on the same disk, then rename."""
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
    """Apply the umask's permissions: safetensors makes its files readable only to the owner."""
    mask = os.umask(0)
    os.umask(mask)
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o666 & ~mask)
