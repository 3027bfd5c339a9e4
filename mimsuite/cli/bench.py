"""`mimsuite bench`: speed of a recipe, as a share of this machine's limit."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from mimsuite.cli import output
from mimsuite.cli.options import JsonOption, OverridesArgument, RecipeArgument
from mimsuite.cluster.launch import launch
from mimsuite.errors import UserError

app = typer.Typer(no_args_is_help=True, help="Measure speed against this machine's own limit.")


DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
BatchOption = Annotated[int, typer.Option(min=1, help="Samples per step.")]
ThreadsOption = Annotated[int, typer.Option(min=1, help="CPU threads.")]
RoundsOption = Annotated[int, typer.Option(min=1, help="Timed rounds; the median counts.")]


@app.command()
def step(
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    batch: BatchOption = 4,
    threads: ThreadsOption = 1,
    rounds: RoundsOption = 5,
    as_json: JsonOption = False,
) -> None:
    """Time a training step on random samples, optimizer included, against matrix products.

    Example: mimsuite bench step image/mae-vitb16-in1k
    """
    from mimsuite import config
    from mimsuite.train.bench import bench_step

    resolved = config.load(recipe, overrides or [])
    figures = bench_step(resolved, batch, threads, rounds)
    _tell(f"a step of {resolved.name}", figures, as_json)


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
    """Time the loader alone: reading against webdataset, views against torchvision and PIL.

    It runs on copies of the first images, in one process, without workers.

    Example: mimsuite bench data ./photos
    """
    from mimsuite.cli.bar import progress_of
    from mimsuite.train.bench_data import bench_data

    with progress_of("rounds") as progress:
        figures = bench_data(
            **_what_to_load(what, overrides or []), rounds=rounds, progress=progress
        )
    for line in _loader_table(figures):
        output.say(line)
    if as_json:
        output.print_json(figures)


def _what_to_load(what: str | None, overrides: list[str]) -> dict[str, Any]:
    """Arguments of ``bench_data`` for a recipe, a source or neither."""
    from mimsuite import config
    from mimsuite.data import open_source, open_split

    if what is None or not (what.endswith(".yaml") or what in config.recipe_names()):
        if overrides:
            raise UserError(f"{overrides[0]} changes a recipe's key, but no recipe was named")
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
    """The figures as text, one line per case."""
    reading, views, ratios = figures["reading"], figures["views"], figures["ratios"]
    size, loader = figures["set"]["kilobytes_per_sample"], figures["loader"]

    def line(name: str, rate: float | None, ratio: str | None = None) -> str:
        if rate is None:
            return f"{name:<34} not installed: pip install 'mimsuite[fast]'"
        against = "" if ratio is None else f"{ratios[ratio]:10.2f} x"
        return f"{name:<34}{rate:10,.0f}{against}".rstrip()

    return [
        f"{figures['set']['name']}, {size:.0f} kB per image; samples/s per core",
        "reading without decoding",
        line("  webdataset, shuffle(1000)", reading["webdataset"]),
        line("  shards, data.verify=size", reading["size"], "read_size_to_webdataset"),
        line("  shards, data.verify=crc", reading["crc"], "read_crc_to_webdataset"),
        line("  files in a folder", reading["folder"], "read_folder_to_webdataset"),
        "training views",
        line("  torchvision and PIL", views["torchvision"]),
        line("  default decoder", views["default"], "views_to_torchvision"),
        line("  faster decoder", views.get("fast"), "fast_views_to_torchvision"),
        "loader, {workers} workers, per image: {training_thread_ms:.4f} ms of the training thread, "
        "{training_process_ms:.4f} ms with the feeding thread".format(**loader),
        f"mean difference from PIL's views: {figures['pixel_difference']:.3f} of 255",
    ]


@app.command()
def gemm(
    threads: ThreadsOption = 1,
    device: DeviceOption = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, tf32, bf16 or fp16.")] = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure this machine's speed of matrix products (ViT-B's shapes) and of copies.

    Example: mimsuite bench gemm --threads 2
    """
    from mimsuite.train.bench import bench_gemm

    _tell("what this machine can do", bench_gemm(threads, device, precision), as_json)


@app.command()
def ddp(
    ctx: typer.Context,
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    procs: Annotated[int, typer.Option(min=2, metavar="N", help="Processes.")] = 2,
    batch: BatchOption = 8,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of each process.")] = 1,
    rounds: RoundsOption = 3,
    report: Annotated[Path | None, typer.Option(hidden=True)] = None,
    as_json: JsonOption = False,
) -> int:
    """Time a step shared by N processes, against one process with all their threads.

    Example: mimsuite bench ddp image/mae-vitb16-in1k --procs 2
    """
    from mimsuite.cluster import find_rank_info

    info = find_rank_info()
    if info.world == 1 and batch % procs:
        raise UserError(f"--batch {batch} cannot be shared evenly by --procs {procs}")
    if info.world > 1:
        if report is None:
            raise UserError("bench ddp starts its own processes: run it without a launcher")
        _rank(recipe, overrides or [], batch, threads, rounds, report)
        return 0
    with TemporaryDirectory(prefix="mimsuite-bench-") as folder:
        file = Path(folder) / "figures.json"
        words = [*ctx.find_root().obj.words, "--report", str(file)]
        code = launch(words, procs)
        if code or not file.exists():
            return code or 1
        shared = json.loads(file.read_text())
    figures = _alone(recipe, overrides or [], batch, threads * procs, rounds)
    one = figures.pop("samples_per_second")
    figures |= {**shared, "one_process": one, "scaling": shared["samples_per_second"] / one}
    _tell(f"{procs} processes on a step of {recipe}", figures, as_json)
    return 0


@app.command("all")
def everything(
    recipe: Annotated[
        str, typer.Argument(metavar="[RECIPE]", help="Recipe name or YAML file.")
    ] = "image/mae-vitb16-in1k",
    overrides: OverridesArgument = None,
    batch: BatchOption = 4,
    threads: ThreadsOption = 1,
    rounds: RoundsOption = 5,
    as_json: JsonOption = False,
) -> None:
    """Measure matrix products, a step and the loader, one after the other.

    Example: mimsuite bench all --json > speed.json
    """
    from mimsuite import config
    from mimsuite.train.bench import bench_gemm, bench_step
    from mimsuite.train.bench_data import bench_data

    resolved = config.load(recipe, overrides or [])
    place, precision = resolved.recipe.train.device, resolved.recipe.train.precision
    found = {"gemm": bench_gemm(threads, place, precision)}
    _tell("what this machine can do", found["gemm"], False)
    found["step"] = bench_step(resolved, batch, threads, rounds)
    _tell(f"a step of {resolved.name}", found["step"], False)
    found["data"] = bench_data(rounds=rounds)
    for line in _loader_table(found["data"]):
        output.say(line)
    if as_json:
        output.print_json(found)


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="bad-batch-... of a run that diverged.")],
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Run the batch on which training diverged again, and name the non-finite gradients.

    Example: mimsuite bench replay runs/first/bad-batch-00001199-rank-0.safetensors
    """
    from mimsuite.report.files import jsonable
    from mimsuite.train.replay import replay as run_again

    found = run_again(file, device)
    if as_json:
        output.print_json(jsonable(found))
        return
    for name, value in found.items():
        output.say(f"{name.replace('_', ' '):>12}  {value}")


def _tell(title: str, figures: dict[str, Any], as_json: bool) -> None:
    from mimsuite.report.bench import bench_table

    bench_table(title, figures)
    if as_json:
        output.print_json(figures)


def _rank(
    recipe: str, overrides: list[str], batch: int, threads: int, rounds: int, report: Path
) -> None:
    """One of several processes; the first writes the figures."""
    from mimsuite import config
    from mimsuite.cluster import find_rank_info
    from mimsuite.cluster.meeting import join
    from mimsuite.train.bench import bench_ranks
    from mimsuite.train.device import choose_device

    resolved = config.load(recipe, overrides)
    train, info = resolved.recipe.train, find_rank_info()
    device = choose_device(train.device, info.local_rank, info.world)
    peers = join(info, device, train.timeout_seconds)
    figures = bench_ranks(resolved, batch, threads, rounds, peers)
    if peers.first:
        report.write_text(json.dumps(figures))


def _alone(
    recipe: str, overrides: list[str], batch: int, threads: int, rounds: int
) -> dict[str, Any]:
    from mimsuite import config
    from mimsuite.cluster.peers import ALONE
    from mimsuite.train.bench import bench_ranks, machine
    from mimsuite.train.device import choose_device

    resolved = config.load(recipe, overrides)
    device = choose_device(resolved.recipe.train.device)
    return {**machine(device, threads), **bench_ranks(resolved, batch, threads, rounds, ALONE)}
