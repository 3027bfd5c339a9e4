"""`mimsuite features`: write frozen features, or their dictionary codes, for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mimsuite.cli import options
from mimsuite.cli.model_io import on_cuda, open_on_device, together
from mimsuite.cluster import require_single_process
from mimsuite.errors import UserError

FEATURE_FILES = (".safetensors", ".npy", ".csv")


def features(
    ctx: typer.Context,
    model: options.ModelArgument,
    out: Annotated[
        Path,
        typer.Option(
            "--out", metavar="FILE", help="A .safetensors, .npy or .csv file; of shards a folder."
        ),
    ],
    overrides: options.OverridesArgument = None,
    data: options.DataOption = None,
    split: Annotated[str, typer.Option("--split", help="Split of the source.")] = "train",
    layer: Annotated[int | None, typer.Option("--layer", help="Block; default: the last.")] = None,
    pool: Annotated[
        str | None,
        typer.Option("--pool", help="cls or mean (default: eval.pool); for codes max or mean."),
    ] = None,
    dictionary: Annotated[
        str | None,
        typer.Option("--dictionary", metavar="FILE", help="Write its codes instead of features."),
    ] = None,
    dense: Annotated[
        bool, typer.Option("--dense", help="Write codes as a full table; default: sparse rows.")
    ] = False,
    shards: Annotated[
        bool,
        typer.Option("--shards", help="Write grids of tokens as WebDataset shards to a folder."),
    ] = False,
    device: options.DeviceOption = "auto",
    procs: options.ProcsOption = None,
    gpus: options.GpusOption = None,
) -> int:
    """Write frozen features, labels and sample keys for other tools.

    A .safetensors FILE holds `features` (N, D) and, if known, `labels`; a .json file beside it has
    sample keys and class names. An .npy FILE is the (N, D) array; a .keys.csv file beside it has
    keys and labels in the same order. A .csv FILE has everything in one table. With --dictionary, a
    .safetensors FILE holds codes as sparse rows (CSR) in `indptr`, `indices` and `values`. With
    --shards, FILE is a folder of WebDataset shards with the tokens of each image, float16
    (D, h, w), and `latents.json` with the mean and deviation of each channel; run again, it
    resumes.

    Example: mimsuite features runs/first --data ./photos --out photos.safetensors
    """
    if shards:
        if dictionary or layer is not None or pool or procs or gpus:
            raise UserError(
                "--shards writes all tokens of the last block in one process: leave out "
                "--dictionary, --layer, --pool, --procs and --gpus"
            )
        return _latents(model, overrides, data, split, device, out)
    if out.suffix not in FEATURE_FILES:
        raise UserError(f"--out {out}: the name must end in {', '.join(FEATURE_FILES)}")
    if dense and dictionary is None:
        raise UserError("--dense is for codes: give --dictionary FILE")
    if dictionary is not None:
        if out.suffix != ".safetensors":
            raise UserError(f"--out {out}: for codes the name must end in .safetensors")
        if procs or gpus:
            raise UserError("--dictionary runs in one process: leave out --procs and --gpus")
        return _codes(model, overrides, data, split, layer, pool, dictionary, device, out, dense)
    if procs or gpus:
        return options.start_processes(ctx, procs, gpus, on_cuda(gpus, device))
    from mimsuite.console import say
    from mimsuite.data import open_split
    from mimsuite.evaluate import extract, save_features
    from mimsuite.evaluate.sources import say_unused

    with together(device) as (peers, place):
        opened = open_on_device(model, overrides, data, place, peers.first)
        source = open_split(opened.resolved.recipe, split)
        if peers.first:
            say_unused(opened.resolved, source)
        wanted = pool or opened.resolved.recipe.eval.pool
        found = extract(
            opened.method,
            source,
            opened.resolved,
            pools=["mean" if wanted == "auto" else wanted],
            layers=[opened.method.layer_count() - 1 if layer is None else layer],
            peers=peers,
        )
    if peers.first:
        try:
            written = save_features(found, out)
        except OSError as error:
            raise UserError(f"cannot write {out}: {error.strerror or error}") from error
        name, table = next(iter(found.features.items()))
        say(f"{name}: {len(table)} x {table.shape[1]} -> {', '.join(map(str, written))}")
    return 0


def _latents(
    model: str,
    overrides: list[str] | None,
    data: str | None,
    split: str,
    device: str,
    out: Path,
) -> int:
    """`features --shards`."""
    require_single_process()
    from mimsuite.console import say
    from mimsuite.data import open_split
    from mimsuite.evaluate.latent_shards import write_latents

    opened = open_on_device(model, overrides, data, device)
    source = open_split(opened.resolved.recipe, split)
    facts = write_latents(opened.method, source, opened.resolved, out, encoder=model)
    taken = f", {facts['kept']} of them were there" if facts["kept"] else ""
    shape = f"{len(facts['mean'])} channels"
    say(f"latents: {facts['count']} places of {shape} -> {len(facts['shards'])} shards{taken}")
    return 0


def _codes(
    model: str,
    overrides: list[str] | None,
    data: str | None,
    split: str,
    layer: int | None,
    pool: str | None,
    dictionary: str,
    device: str,
    out: Path,
    dense: bool,
) -> int:
    """`features --dictionary`."""
    require_single_process()
    from mimsuite.console import say
    from mimsuite.data import open_split
    from mimsuite.dictionaries.embedding import encode_images, save_codes
    from mimsuite.dictionaries.stored import load_dictionary
    from mimsuite.train.device import choose_device

    stored = load_dictionary(dictionary)
    if layer not in (None, stored.facts["layer"]):
        raise UserError(f"--layer {layer}: the dictionary is for block {stored.facts['layer']}")
    chosen = choose_device(device)
    opened = open_on_device(model, overrides, data, chosen)
    source = open_split(opened.resolved.recipe, split)
    codes = encode_images(opened.method, stored, source, opened.resolved, chosen, pool or "max")
    try:
        written = save_codes(codes, out, stored.facts, dense=dense)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}") from error
    active = len(codes.values) / len(codes.keys)
    shape = f"{len(codes.keys)} x {codes.size}"
    say(f"codes: {shape}, {active:.1f} per image -> {', '.join(map(str, written))}")
    return 0
