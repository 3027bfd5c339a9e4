"""`mimsuite bench`: how fast a recipe runs here, as a share of what this machine can do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mimsuite.cli import output
from mimsuite.cli.options import JsonOption, OverridesArgument
from mimsuite.errors import UserError

app = typer.Typer(no_args_is_help=True, help="Measure speed against this machine's own limit.")


@app.command()
def step(
    recipe: Annotated[str, typer.Argument(help="Recipe name or YAML file.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    batch: Annotated[int, typer.Option(help="Samples a step.")] = 4,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
    rounds: Annotated[int, typer.Option(help="Timed steps; the median counts.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Time one training step on random images, with the optimizer, beside matrix products.

    Example: mimsuite bench step image/mae-vitb16-in1k
    """
    from mimsuite import config
    from mimsuite.train.bench import bench_step, print_bench

    resolved = config.load(recipe, overrides or [])
    print_bench(bench_step(resolved, batch, threads, rounds), as_json)


@app.command()
def data(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="[RECIPE|SRC]",
            help="Recipe, folder, list file, shards or embedded:NAME; without it: made-up photos.",
            show_default=False,
        ),
    ] = None,
    overrides: OverridesArgument = None,
    rounds: Annotated[int, typer.Option(min=1, help="Timed rounds; the median counts.")] = 5,
    as_json: JsonOption = False,
) -> None:
    """Time the loader alone: reading beside webdataset, views beside torchvision and PIL.

    Works on copies of the first images, in one process, without workers.

    Example: mimsuite bench data ./photos
    """
    from mimsuite.cli.bar import progress_of
    from mimsuite.data.bench import bench_data

    with progress_of("rounds") as progress:
        figures = bench_data(
            **_what_to_load(what, overrides or []), rounds=rounds, progress=progress
        )
    for line in _loader_table(figures):
        output.say(line)
    if as_json:
        output.print_json(figures)


def _what_to_load(what: str | None, overrides: list[str]) -> dict[str, Any]:
    """Arguments of ``bench_data`` for a recipe, a source, or neither."""
    from mimsuite import config
    from mimsuite.data import open_source, open_split

    if what is None or not (what.endswith(".yaml") or what in config.recipe_names()):
        if overrides:
            raise UserError(f"{overrides[0]} changes a recipe's key, and no recipe was named")
        return {"source": None if what is None else open_source(what)}
    recipe = config.load(what, overrides).recipe
    encoder = getattr(recipe.model, "encoder", None)
    return {
        "source": open_split(recipe, recipe.data.split) if recipe.data.source else None,
        "augment": recipe.augment,
        "image_size": getattr(encoder, "image_size", 224),
        "channels": recipe.data.channels,
    }


def _loader_table(figures: dict[str, Any]) -> list[str]:
    """The figures for people, a line a case."""
    reading, views, ratios = figures["reading"], figures["views"], figures["ratios"]
    size = figures["set"]["kilobytes_per_sample"]

    def line(name: str, rate: float | None, ratio: str | None = None) -> str:
        if rate is None:
            return f"{name:<34} not installed: pip install 'mimsuite[fast]'"
        against = "" if ratio is None else f"{ratios[ratio]:10.2f} x"
        return f"{name:<34}{rate:10,.0f}{against}".rstrip()

    return [
        f"{figures['set']['name']}, {size:.0f} kB an image; samples/s of one core",
        "reading, not decoding",
        line("  webdataset, shuffle(1000)", reading["webdataset"]),
        line("  shards, data.verify=size", reading["size"], "read_size_to_webdataset"),
        line("  shards, data.verify=crc", reading["crc"], "read_crc_to_webdataset"),
        line("  files in a folder", reading["folder"], "read_folder_to_webdataset"),
        "training views",
        line("  torchvision and PIL", views["torchvision"]),
        line("  default decoder", views["default"], "views_to_torchvision"),
        line("  faster decoder", views.get("fast"), "fast_views_to_torchvision"),
        f"views differ from PIL's by {figures['pixel_difference']:.3f} of 255 in the mean",
    ]


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="bad-batch-... of a run that diverged.")],
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Run the batch at which training broke again, and name the gradients that are not finite.

    Example: mimsuite bench replay runs/first/bad-batch-00001199-rank-0.safetensors
    """
    from mimsuite.train.bench import print_bench
    from mimsuite.train.replay import replay as run_again

    print_bench(run_again(file, device), as_json)


@app.command()
def gemm(
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Measure this machine's rate of float32 matrix products in the shapes of ViT-B.

    Example: mimsuite bench gemm
    """
    from mimsuite.train.bench import bench_gemm, print_bench

    print_bench(bench_gemm(threads), as_json)
