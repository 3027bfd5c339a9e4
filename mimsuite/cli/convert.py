"""`mimsuite export` and `mimsuite import`: models for other libraries, and from published files."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mimsuite.cli.options import JsonOption
from mimsuite.errors import UserError

if TYPE_CHECKING:
    from mimsuite.checkpoints import Hints, Opened


_SIZES = ("image_size", "patch_size", "in_channels", "width", "depth", "heads")  # in the summary


class FormatName(StrEnum):
    """Values of ``--format``; :data:`mimsuite.export.FORMATS` has the same names."""

    timm = "timm"
    hf = "hf"
    safetensors = "safetensors"
    onnx = "onnx"
    reference = "reference"
    vitdet = "vitdet"


class Origin(StrEnum):
    """Values of ``--from``: published files that no weights file is, each read by a module."""

    dalle = "dalle"


ForceOption = Annotated[bool, typer.Option("--force", help="Replace an existing result.")]
HeadsOption = Annotated[
    int | None,
    typer.Option(min=1, help="Attention heads of the encoder, where an official file needs it."),
]
DecoderHeadsOption = Annotated[
    int | None, typer.Option(min=1, help="Attention heads of the decoder, likewise.")
]
ImageSizeOption = Annotated[
    tuple[int, int] | None,
    typer.Option(metavar="H W", help="Image size in pixels, where positions do not tell it."),
]

EntryOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Which of a checkpoint's networks: student, teacher ..."),
]


def export(
    model: Annotated[
        Path, typer.Argument(metavar="RUN|CKPT", help="Run, checkpoint or weights file.")
    ],
    format: Annotated[FormatName, typer.Option("--format", help="What to write.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="File, or folder for hf; else RUN/export/NAME-FORMAT."),
    ] = None,
    force: ForceOption = False,
    heads: HeadsOption = None,
    decoder_heads: DecoderHeadsOption = None,
    image_size: ImageSizeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a model for timm, Hugging Face transformers, ONNX, Detectron2's ViTDet, the
    published code or this suite.

    Example: mimsuite export runs/first --format timm
    """
    from mimsuite import export as exports
    from mimsuite.checkpoints import open_model

    opened = open_model(model, _hints(heads, decoder_heads, image_size))
    out = out or exports.default_out(model, format.value)
    usage = exports.export(opened, format.value, out, force=force)
    _report(opened, format.value, out, usage, as_json)


def import_(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE|FOLDER", help="Checkpoint: .pth, .safetensors, or a Hugging Face folder."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What to write; else NAME.safetensors here.")
    ] = None,
    force: ForceOption = False,
    heads: HeadsOption = None,
    decoder_heads: DecoderHeadsOption = None,
    image_size: ImageSizeOption = None,
    entry: EntryOption = None,
    from_: Annotated[
        Origin | None,
        typer.Option("--from", help="dalle: the published encoder.pkl, for target.tokenizer."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Take in an official checkpoint: say what it is, and write it as one of this suite's files.

    The result holds the recipe too, so every command takes it in place of a run. With --from it is
    the weights of a tokenizer, for a recipe. Nothing that a file holds is ever run.

    Example: mimsuite import mae_pretrain_vit_base_full.pth

    Example: mimsuite import encoder.pkl --from dalle --out dalle-encoder.safetensors
    """
    if from_ is not None:
        hints = {"heads": heads, "decoder-heads": decoder_heads, "entry": entry}
        for name, value in {**hints, "image-size": image_size}.items():
            if value is not None:
                raise UserError(f"--{name} is not for --from {from_.value}")
        _import_tokenizer(file, out or Path(f"{from_.value}-encoder.safetensors"), force, as_json)
        return
    from mimsuite import export as exports
    from mimsuite.checkpoints import open_model

    opened = open_model(file, _hints(heads, decoder_heads, image_size, entry))
    out = out or Path(f"{_stem(file)}.safetensors")
    usage = exports.export(opened, "safetensors", out, force=force)
    _report(opened, "safetensors", out, usage, as_json)


def _import_tokenizer(file: Path, out: Path, force: bool, as_json: bool) -> None:
    from mimsuite.cli.output import print_json
    from mimsuite.console import rows, say
    from mimsuite.export import save_tensors
    from mimsuite.models.dalle import read_published

    tensors, sizes = read_published(file)
    save_tensors(tensors, out, force=force)
    keys = {"weights": str(out), **sizes}
    use = " ".join(f"target.tokenizer.{key}={value}" for key, value in keys.items())
    say(f"wrote {out}", "bold cyan")
    rows([("from", f"{file}, {len(tensors)} tensors"), ("use", use)])
    if as_json:
        print_json({"out": str(out), "format": "safetensors", **sizes, "use": [use]})


def _stem(file: Path) -> str:
    """A name that says which model it is, where a file's own is the same for all of them."""
    if file.name.partition(".")[0] in ("model", "pytorch_model", "config"):
        return file.resolve().parent.name
    return file.resolve().name if file.is_dir() else file.stem


def _hints(
    heads: int | None,
    decoder_heads: int | None,
    image_size: tuple[int, int] | None,
    entry: str | None = None,
) -> Hints:
    from mimsuite.checkpoints import Hints

    return Hints(heads=heads, decoder_heads=decoder_heads, image_size=image_size, entry=entry)


def _report(opened: Opened, form: str, out: Path, usage: list[str], as_json: bool) -> None:
    from mimsuite.cli.output import print_json
    from mimsuite.console import rows, say

    facts = _facts(opened)
    say(f"wrote {out}", "bold cyan")
    rows(
        [
            ("from", opened.origin),
            ("model", facts["summary"]),
            *(("note", note) for note in opened.notes),
            *(("use" if i == 0 else "", line) for i, line in enumerate(usage)),
        ]
    )
    if as_json:
        print_json({"out": str(out), "format": form, **facts, "notes": opened.notes, "use": usage})


def _facts(opened: Opened) -> dict[str, Any]:
    """What was opened, as values and as a line."""
    from mimsuite.text import count

    document = opened.resolved.document
    method, encoder = document["method"]["name"], document["model"].get("encoder", {})
    sizes = ", ".join(f"{key} {value}" for key, value in encoder.items() if key in _SIZES)
    parameters = sum(p.numel() for p in opened.method.encoder.parameters())
    return {
        "origin": opened.origin,
        "method": method,
        "step": opened.step,
        "has_decoder": opened.has_decoder,
        "encoder_parameters": parameters,
        "encoder": encoder,
        "summary": f"{method}, encoder: {sizes}; {count(parameters)} parameters",
    }
