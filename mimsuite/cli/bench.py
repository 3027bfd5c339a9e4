"""`mimsuite bench`: how fast a recipe runs here, as a share of what this machine can do."""

from __future__ import annotations

from typing import Annotated

import typer

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
def gemm(
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Measure this machine's rate of float32 matrix products in the shapes of ViT-B.

    Example: mimsuite bench gemm
    """
    from mimsuite.train.bench import bench_gemm, print_bench

    print_bench(bench_gemm(threads), as_json)
