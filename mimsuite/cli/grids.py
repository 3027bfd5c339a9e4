"""`mimsuite data nerf-grid-check`, `-convert` and `-splats`: check and convert stored scenes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mimsuite.cli.fields import MaxResOption, box_of, write_grid
from mimsuite.cli.options import JsonOption
from mimsuite.errors import UserError

_KINDS = ("log", "linear", "alpha")
DeltaOption = Annotated[
    float, typer.Option(min=0.0, help="Absorption length, if the file has none.")
]


def nerf_grid_check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An .npz file.")],
    density: Annotated[
        str | None, typer.Option(help="log, linear or alpha, if the file does not state it.")
    ] = None,
    delta: DeltaOption = 0.01,
    slices: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write three slice pictures there.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show a radiance grid's size, box, opacity, up axis and labels.

    Example: mimsuite data nerf-grid-check scene.npz --slices pictures
    """
    from mimsuite.cli.output import print_json
    from mimsuite.console import say
    from mimsuite.fields.inspect import inspect_grid

    if density is not None:
        _require(density, _KINDS, "--density")
    found = {"file": str(file), **inspect_grid(file, density, delta, slices)}
    for name, value in found.items():
        say(f"{name}: {'not said' if value is None else value}")
    if as_json:
        print_json(found)


def nerf_grid_splats(
    splats: Annotated[Path, typer.Argument(metavar="PLY", help="3-D Gaussian splats, binary.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="An .npz file, new.")],
    bbox: Annotated[
        str | None,
        typer.Option("--bbox", metavar="X,Y,Z,X,Y,Z", help="Lower and upper corner, z up."),
    ] = None,
    max_res: MaxResOption = 160,
    up: Annotated[str, typer.Option(help="Up axis: z, y, -y or -z.")] = "z",
    as_json: JsonOption = False,
) -> None:
    """Sample 3-D Gaussian splats on a grid, as NeRF-MAE needs it.

    These grids are thin shells and carry source=3dgs. Do not mix them with grids of fields.

    Example: mimsuite data nerf-grid-splats point_cloud.ply --out scene.npz --up -y
    """
    from mimsuite.fields.gaussians import UPWARDS, read_gaussians, splat_grid

    _require(up, UPWARDS, "--up")
    box = None if bbox is None else box_of(bbox)
    grid = splat_grid(read_gaussians(splats, up), bbox=box, max_res=max_res)
    write_grid(grid, out, {}, as_json)


def nerf_grid_convert(
    source: Annotated[
        Path, typer.Argument(metavar="SRC", help="A features/ folder, or one .npz file.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder, new.")],
    density: Annotated[
        str, typer.Option(help="log: instant-ngp's fork; linear: ScanNet; alpha: Hypersim.")
    ],
    up: Annotated[str, typer.Option(help="y: instant-ngp's flat grids; z: all others.")] = "z",
    delta: DeltaOption = 0.01,
    boxes: Annotated[
        Path | None, typer.Option(metavar="DIR", help="SCENE.npy (G, 7) or (G, 6) in voxels.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(metavar="DIR", help="SCENE.npy (X, Y, Z) voxel classes.")
    ] = None,
    split: Annotated[
        Path | None, typer.Option(metavar="FILE", help="An .npz with train_scenes and so on.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Convert scenes published by NeRF-RPN and NeRF-MAE, with their boxes and labels.

    Example: mimsuite data nerf-grid-convert features rooms --density log --up y --boxes obb
    """
    from mimsuite.cli.output import print_json
    from mimsuite.console import say
    from mimsuite.fields.convert import Conversion, convert_scenes

    _require(density, _KINDS, "--density")
    _require(up, ("y", "z"), "--up")
    conversion = Conversion(density, delta, up, boxes, labels)  # type: ignore[arg-type]
    written = convert_scenes(source, out, conversion, split)
    if as_json:
        print_json({"out": str(out), "scenes": written})
    say(f"{', '.join(f'{count} {name}' for name, count in written.items())} scenes in {out}")


def _require(value: str, known: tuple[str, ...], option: str) -> None:
    if value not in known:
        raise UserError(f"{option} {value}: one of {', '.join(known)}")
