"""`mimsuite pictures`: draw an encoder's features and attention."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mimsuite.cli.options import DeviceOption, JsonOption, ModelArgument
from mimsuite.cluster import require_single_process


def pictures(
    model: ModelArgument,
    more: Annotated[
        list[str] | None, typer.Argument(metavar="[FILE]...", help="More files.")
    ] = None,
    source: Annotated[
        str,
        typer.Option("--input", metavar="FILES|SRC", help="Files, or a source of samples."),
    ] = ...,  # type: ignore[assignment]
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the pictures go.")] = ...,  # type: ignore[assignment]
    count: Annotated[
        int, typer.Option("--n", min=1, max=64, help="Samples, spread over a source.")
    ] = 8,
    split: Annotated[
        str | None, typer.Option("--split", help="Split of a source; default: eval.split.")
    ] = None,
    query: Annotated[
        int | None, typer.Option("--query", help="Number of the token for nearest.png.")
    ] = None,
    neighbours: Annotated[int, typer.Option("--neighbours", min=1, help="Similar patches.")] = 4,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Draw patch features as colours, attention of the last block, and similar patches.

    features.png: the first three principal components of all features as red, green and blue.
    attention.png: attention of the class token, or of all tokens if there is none. nearest.png: a
    token (the middle one, or --query) and the most similar tokens of other samples.

    Example: mimsuite pictures runs/first --input ./photos --out pictures
    """
    require_single_process()
    from mimsuite.checkpoints import open_model
    from mimsuite.cli.output import print_json, say
    from mimsuite.report.feature_pictures import save_feature_pictures
    from mimsuite.report.reconstruct import load_samples
    from mimsuite.train.device import choose_device

    opened = open_model(model)
    for note in opened.notes:
        say(note)
    chosen, inputs = choose_device(device), [source, *(more or [])]
    batch = load_samples(opened.resolved, inputs, max(count, len(inputs)), chosen, split)
    method = opened.method.to(chosen)
    written = save_feature_pictures(method, batch, out, query=query, neighbours=neighbours)
    if as_json:
        print_json([str(path) for path in written])
    else:
        say(f"{len(batch)} samples: {', '.join(map(str, written))}")
