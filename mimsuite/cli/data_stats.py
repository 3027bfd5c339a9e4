"""`mimsuite data stats`: mean and deviation of each channel."""

from __future__ import annotations

from typing import Annotated

import typer

from mimsuite.cli import output
from mimsuite.cli.bar import progress_of
from mimsuite.cli.options import JsonOption
from mimsuite.errors import UserError


def stats(
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="Folder, list file, tar shards or embedded:NAME.")
    ],
    modality: Annotated[str | None, typer.Option(help="image or bands.")] = None,
    split: Annotated[str | None, typer.Option(help="Default: train, or the only one.")] = None,
    channels: Annotated[
        str, typer.Option(help="Images: as data.channels: rgb, gray, rgba, gray16 or native.")
    ] = "rgb",
    bands: Annotated[
        str | None, typer.Option(metavar="A,B", help="Rasters: names or numbers; default: all.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Print the mean and standard deviation of each channel as keys of a recipe.

    One pass over a split. Of images in [0, 1]; of rasters as stored, without no-data values.

    Example: mimsuite data stats ./scenes --bands red,green,blue,nir
    """
    from mimsuite.cli.data import channels_of
    from mimsuite.data.packing.statistics import statistics
    from mimsuite.data.sources.stored import only_modality, stored_splits

    kind = only_modality(source, modality)
    if bands is not None and kind != "bands":
        raise UserError(f"--bands is for rasters, and {source} has the modality {kind}")
    splits = stored_splits(source, kind)
    chosen = split or ("train" if "train" in splits else splits[0])
    with progress_of("reading") as progress:
        found = statistics(
            source,
            kind,
            split=chosen,
            channels=channels_of(channels),
            bands=None if bands is None else tuple(part.strip() for part in bands.split(",")),
            progress=progress,
        )
    for damage in found.damaged:
        output.warn(f"left out {damage}")
    if json:
        output.print_json({"source": source, "modality": kind, "split": chosen, **found.as_json()})
        return
    rows = [
        [name, *(f"{value:.6g}" for value in figures)]
        for name, *figures in zip(
            found.names, found.mean, found.std, found.lowest, found.highest, strict=True
        )
    ]
    output.print_table(["channel", "mean", "std", "min", "max"], rows)
    output.say(f"{found.samples} samples of {chosen}; keys for the recipe:")
    for key, values in (("mean", found.mean), ("std", found.std)):
        print(f"augment.{key}=[{', '.join(f'{value:.6g}' for value in values)}]")
