"""`mimsuite export` and `import`: write models for other libraries, read published ones."""

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
    """Values of ``--from``: published files that are not weights files; each has a reader."""

    dalle = "dalle"


ForceOption = Annotated[bool, typer.Option("--force", help="Replace an existing result.")]
HeadsOption = Annotated[
    int | None,
    typer.Option(min=1, help="Attention heads of the encoder, if the file does not show them."),
]
DecoderHeadsOption = Annotated[
    int | None, typer.Option(min=1, help="Attention heads of the decoder, if not shown.")
]
ImageSizeOption = Annotated[
    tuple[int, int] | None,
    typer.Option(metavar="H W", help="Image size in pixels, if the file does not show it."),
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
        typer.Option(
            metavar="PATH", help="File, or folder for hf; default: RUN/export/NAME-FORMAT."
        ),
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
        Path | None, typer.Option(metavar="FILE", help="Output; default: NAME.safetensors here.")
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
    """Identify an official checkpoint, and write it as a weights file of this suite.

    The result includes the recipe, so every command accepts it in place of a run. With --from it
    holds a tokenizer's weights, for a recipe. Code in a file is never executed.

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
    """A name for the output; the folder's, where the file's name is the same for all models."""
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
    """Facts about the opened model: values, and a one-line summary."""
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
