"""`mimsuite reconstruct`: draw samples, their masks and their reconstructions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mimsuite.cli.options import JsonOption
from mimsuite.cluster import require_single_process


def reconstruct(
    model: Annotated[
        str,
        typer.Argument(
            metavar="RUN|CKPT",
            help="Run directory, checkpoint or weights file.",
            show_default=False,
        ),
    ],
    more: Annotated[
        list[str] | None, typer.Argument(metavar="[FILE]...", help="More image files.")
    ] = None,
    source: Annotated[
        str,
        typer.Option(
            "--input",
            metavar="FILES|SRC",
            help="Image files, or a folder, list file, tar shards or embedded:NAME.",
        ),
    ] = ...,  # type: ignore[assignment]
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the pictures go.")] = ...,  # type: ignore[assignment]
    count: Annotated[
        int, typer.Option("--n", min=1, max=64, help="Samples, spread over a source.")
    ] = 8,
    split: Annotated[
        str | None, typer.Option("--split", help="Split of a source; default: eval.split.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the masks.")] = 0,
    ratio: Annotated[
        float | None, typer.Option("--ratio", help="Mask this share of the tokens instead.")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps.")] = "auto",
    as_json: JsonOption = False,
) -> None:
    """Draw samples original, masked and reconstructed: one grid, and one picture per sample.

    Example: mimsuite reconstruct runs/first --input photo.jpg --out pictures
    """
    require_single_process()
    from mimsuite.checkpoints import open_model
    from mimsuite.cli.output import print_json, say
    from mimsuite.report.reconstruct import load_samples, rebuilding_method, save_reconstructions
    from mimsuite.train.device import choose_device

    opened = open_model(model)
    for note in opened.notes:
        say(note)
    method = rebuilding_method(opened, model, ratio).to(choose_device(device))
    inputs = [source, *(more or [])]
    wanted = max(count, len(inputs))  # draw every image file that was named
    batch = load_samples(opened.resolved, inputs, wanted, choose_device(device), split)
    grid, *samples = save_reconstructions(method, batch, out, seed)
    if as_json:
        print_json({"grid": str(grid), "samples": [str(path) for path in samples]})
    else:
        say(f"{len(batch)} samples: {grid}, and one by one in {out}")
