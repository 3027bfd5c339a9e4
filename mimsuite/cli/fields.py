"""`mimsuite data nerf-grid` and `fit-nerf`: grids from radiance fields and from pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mimsuite.cli.options import JsonOption
from mimsuite.errors import DataError, UserError

if TYPE_CHECKING:
    from mimsuite.fields import Grid

MaxResOption = Annotated[int, typer.Option("--max-res", min=8, help="Voxels, longest side.")]
ViewsOption = Annotated[int, typer.Option("--max-views", min=1, help="View directions, at most.")]


def nerf_grid(
    field: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:FUNCTION", help="Returns (density, rgb) callables.", show_default=False
        ),
    ],
    cameras: Annotated[
        Path, typer.Option("--cameras", metavar="FILE", help="transforms.json, or its folder.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="An .npz file, new.")],
    bbox: Annotated[
        str | None, typer.Option("--bbox", metavar="X,Y,Z,X,Y,Z", help="Lower and upper corner.")
    ] = None,
    max_res: MaxResOption = 160,
    max_views: ViewsOption = 64,
    margin: Annotated[float, typer.Option(min=0.0, help="Share of the extent, each side.")] = 0.1,
    dirs: Annotated[str, typer.Option(help="cameras, frustum or fixed18.")] = "cameras",
    delta: Annotated[float, typer.Option(help="Absorption length in field units.")] = 0.01,
    store: Annotated[str, typer.Option(help="Density as log, linear or alpha.")] = "log",
    rgb_everywhere: Annotated[bool, typer.Option(help="Also colour empty space.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Sample a radiance field on a grid, as NeRF-MAE needs it.

    FUNCTION takes no arguments and returns density(points) -> (N,) and rgb(points, directions) ->
    (N, 3).

    Example: mimsuite data nerf-grid my_field:load --cameras scene/transforms.json --out scene.npz
    """
    from mimsuite.fields import export_grid, read_cameras

    _require(dirs, ("cameras", "frustum", "fixed18"), "--dirs")
    _require(store, ("log", "linear", "alpha"), "--store")
    density, rgb = _callables(field)
    seen_by = read_cameras(cameras)
    seen_by.unused.warn(str(cameras))
    grid = export_grid(
        density,
        rgb,
        seen_by,
        bbox=None if bbox is None else box_of(bbox),
        margin=margin,
        max_res=max_res,
        max_views=max_views,
        dirs=dirs,  # type: ignore[arg-type]
        delta=delta,
        store=store,  # type: ignore[arg-type]
        rgb_everywhere=rgb_everywhere,
    )
    write_grid(grid, out, {}, as_json)


def fit_nerf(
    posed: Annotated[
        Path, typer.Argument(metavar="POSED", help="transforms.json, its folder, or an .npz.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="An .npz file, new.")],
    scene: Annotated[str | None, typer.Option("--scene", help="Scene of the .npz file.")] = None,
    side: Annotated[int, typer.Option(min=8, help="Grid points along a side.")] = 40,
    radius: Annotated[float, typer.Option(help="Radius of the scene around the origin.")] = 1.0,
    steps: Annotated[int, typer.Option(min=1, help="Training steps of 1,024 rays.")] = 400,
    max_res: MaxResOption = 64,
    background: Annotated[
        str, typer.Option(help="white or black: behind transparent pixels and the scene.")
    ] = "white",
    seed: Annotated[int, typer.Option(min=0, help="Seed of rays and samples.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Fit a small radiance field to pictures with known cameras; sample it on a grid.

    Takes less than a minute per scene on a CPU. Every eighth picture is held out to score the fit.
    A fit that predicts those no better than a blank picture is an error, and nothing is written.

    Example: mimsuite data fit-nerf scene/transforms.json --out scene.npz
    """
    import numpy as np

    from mimsuite.fields.cameras import Camera, Cameras
    from mimsuite.fields.grid_nerf import fit
    from mimsuite.fields.posed import read_posed
    from mimsuite.fields.sample import export_grid

    _require(background, ("white", "black"), "--background")
    given = read_posed(posed, scene, 1.0 if background == "white" else 0.0)
    given.unused.warn(str(posed))
    fitted = fit(given, side=side, radius=radius, steps=steps, seed=seed)
    if not fitted.learnt:
        raise DataError(
            f"{posed}: nothing was learnt: {fitted.psnr:.1f} dB on held-out pictures, "
            f"{fitted.blank:.1f} dB for a blank one. Check the cameras, that the scene lies within "
            f"--radius {radius:g} of the origin, --background, and --steps {steps}"
        )
    cameras = Cameras([Camera(pose.double().numpy()) for pose in given.poses])
    grid = export_grid(
        fitted.field.density,
        fitted.field.rgb,
        cameras,
        bbox=np.array([[-radius] * 3, [radius] * 3]),
        max_res=max_res,
        max_views=1,  # the fitted colour does not depend on the direction
        delta=2 * radius / (max_res - 1),  # side of a voxel
    )
    grid.facts["source"] = "mimsuite data fit-nerf"
    facts: dict[str, Any] = {
        "psnr_held_out": round(fitted.psnr, 2),
        "psnr_blank": round(fitted.blank, 2),
    }
    if fitted.doubtful:
        facts["warning"] = "hardly better than a blank picture: check the cameras"
    write_grid(grid, out, facts, as_json)


def box_of(text: str) -> Any:
    """``0,0,0,1,1,1`` -> (2, 3) array; raises ``UserError``."""
    import numpy as np

    try:
        return np.array([float(word) for word in text.split(",")]).reshape(2, 3)
    except ValueError:
        raise UserError(f"--bbox {text}: expected six numbers, as in -1,-1,0,1,1,2") from None


def _callables(text: str) -> tuple[Any, Any]:
    """The (density, rgb) callables that ``module:function`` returns."""
    import importlib
    import os
    import sys

    module, _, name = text.partition(":")
    if not module or not name:
        raise UserError(f"{text}: expected MODULE:FUNCTION, as in my_field:load")
    sys.path.insert(0, os.getcwd())
    try:
        made = getattr(importlib.import_module(module), name)()
    except Exception as error:
        raise UserError(f"{text} cannot be called: {error!r}") from error
    finally:
        sys.path.pop(0)
    if not (isinstance(made, tuple) and len(made) == 2 and all(map(callable, made))):
        raise UserError(f"{text} must return two callables: (density, rgb)")
    return made


def _require(value: str, known: tuple[str, ...], option: str) -> None:
    if value not in known:
        raise UserError(f"{option} {value}: one of {', '.join(known)}")


def write_grid(grid: Grid, out: Path, facts: dict[str, Any], as_json: bool) -> None:
    """Save a grid as ``out`` and print its figures; raises ``UserError``."""
    from mimsuite.cli.output import print_json
    from mimsuite.console import say
    from mimsuite.fields.check import facts_of

    if out.suffix != ".npz":
        raise UserError(f"--out {out}: the name must end in .npz")
    try:
        grid.save(out)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}") from error
    found = {"file": str(out), **facts_of(grid), **facts}
    for name, value in found.items():
        say(f"{name}: {value}")
    if as_json:
        print_json(found)
