"""`mimsuite data`: inspect, pack, verify and synthesise data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mimsuite.cli import output
from mimsuite.cli.bar import progress_of
from mimsuite.cli.data_show import show_splits
from mimsuite.cli.data_stats import stats
from mimsuite.cli.fields import fit_nerf, nerf_grid
from mimsuite.cli.grids import nerf_grid_check, nerf_grid_convert, nerf_grid_splats
from mimsuite.cli.options import JsonOption
from mimsuite.errors import DataError, UserError

app = typer.Typer(no_args_is_help=True, help="Pack, inspect, verify and make data.")
app.command("nerf-grid")(nerf_grid)
app.command("nerf-grid-check")(nerf_grid_check)
app.command("nerf-grid-convert")(nerf_grid_convert)
app.command("nerf-grid-splats")(nerf_grid_splats)
app.command("fit-nerf")(fit_nerf)
app.command("stats")(stats)

SourceArgument = Annotated[
    str, typer.Argument(metavar="SRC", help="Folder, list file, tar shards or embedded:NAME.")
]
ShardsArgument = Annotated[
    str, typer.Argument(metavar="SHARDS", help="Folder of .tar shards, one shard, or a pattern.")
]
ChannelsOption = Annotated[
    str, typer.Option(help="Decode as data.channels: rgb, gray, rgba, gray16 or native.")
]
WorkersOption = Annotated[int, typer.Option(min=1, help="Processes.")]
ModalityOption = Annotated[
    str | None,
    typer.Option(help="image, video, points, grids, scans, bands."),
]
SecondsOption = Annotated[
    float,
    typer.Option(
        "--sample-seconds",
        min=1,
        help="Processor time per sample other than images.",
    ),
]


@app.command()
def inspect(
    source: SourceArgument,
    modality: ModalityOption = None,
    sheet: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Write a contact sheet of samples.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split of the sheet; default: first.")] = None,
    channels: ChannelsOption = "native",
    json: JsonOption = False,
) -> None:
    """Show the samples, sizes and classes of a source.

    Example: mimsuite data inspect embedded:fashion-mnist --sheet fashion.png
    """
    from mimsuite.data.packing import inspection
    from mimsuite.data.sources.stored import open_stored

    kind = channels_of(channels)
    wanted = _modality(modality)
    if sheet is not None and sheet.suffix.lower() != ".png":
        raise UserError(f"--sheet {sheet}: the name must end in .png")
    with progress_of("looking") as progress:
        figures = inspection.inspect(source, modality=wanted, channels=kind, progress=progress)
    if sheet is not None:
        names = list(figures["splits"])
        chosen = split or ("train" if "train" in names else names[0])
        shown = open_stored(source, chosen, figures["modality"], channels=kind)
        figures["sheet"] = str(inspection.contact_sheet(shown, sheet, figures["modality"]))
    if json:
        output.print_json(figures)
        return
    for part in (figures, *figures.get("others", [])):
        show_splits(part["modality"], part["splits"])
    if sheet is not None:
        output.say(f"wrote {sheet}")


@app.command()
def pack(
    source: SourceArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the shards, new.")],
    modality: ModalityOption = None,
    shard_size: Annotated[int, typer.Option(min=1, help="Samples per shard.")] = 2048,
    resize: Annotated[
        int | None,
        typer.Option(
            "--resize",
            "--short-side",
            min=2,
            metavar="N",
            help="Images, video: largest short side, pixels.",
        ),
    ] = None,
    quality: Annotated[
        int | None,
        typer.Option(min=1, max=100, metavar="N", help="Images: encode as JPEG, quality N."),
    ] = None,
    gop: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Video: encode as H.264, a key frame every N."),
    ] = None,
    points: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Points per cloud; of meshes 8192 by default.",
        ),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(help="Points: also store normals or colors."),
    ] = None,
    spacing: Annotated[
        str | None,
        typer.Option(metavar="MM", help="Scans: 1.5, or 1.5,1.5,2, or keep."),
    ] = None,
    voxels: Annotated[
        str | None,
        typer.Option(help="Scans: int16, float16 or float32."),
    ] = None,
    split: Annotated[str | None, typer.Option(help="One split only; default: all.")] = None,
    only: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keys: one per line, or a CSV column `key`."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of order and points.")] = 0,
    in_order: Annotated[
        bool, typer.Option("--in-order", help="Keep the source's order of samples.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue after an interruption.")
    ] = False,
    seconds: SecondsOption = 120,
    workers: WorkersOption = 1,
    json: JsonOption = False,
) -> None:
    """Write a source as WebDataset tar shards with indexes and checksums.

    Packs images, video, point clouds, meshes, radiance grids, GeoTIFF files, and scans (NIfTI
    files, folders of DICOM files); classes and splits come from sub-folders. Samples that cannot be
    decoded are left out and named.

    Example: mimsuite data pack ./photos ./shards --resize 256

    Example: mimsuite data pack ./clips ./shards --short-side 256 --gop 12 --workers 4

    Example: mimsuite data pack ./meshes ./shards --points 8192

    Example: mimsuite data pack ./scans ./shards --spacing 1.5,1.5,2
    """
    from mimsuite.data.packing.pack import PackOptions, listed
    from mimsuite.data.packing.pack import pack as write

    options = PackOptions(
        modality=_modality(modality),
        shard_size=shard_size,
        resize=resize,
        quality=quality,
        gop=gop,
        points=points,
        features=_features(features),
        spacing=_spacing(spacing),
        voxels=voxels,
        split=split,
        only=None if only is None else listed(only),
        seed=None if in_order else seed,
        seconds=seconds,
        workers=workers,
    )
    try:
        with progress_of("packing") as progress:
            packed = write(source, out, options, progress, resume=resume)
    except KeyboardInterrupt:
        output.say("interrupted; run the same command with --resume to continue")
        raise
    facts = packed.as_json()
    for damage in packed.damaged:
        output.warn(f"left out {damage}")
    for line in packed.dropped.lines():
        output.warn(f"not used: {line}")
    if json:
        output.print_json(facts)
        return
    output.say(
        f"{facts['samples']} {packed.modality} samples in {len(packed.shards)} shards, "
        f"{facts['bytes'] / 1e6:.1f} MB, in {out}"
    )
    if packed.damaged:
        output.say(f"{len(packed.damaged)} samples left out, named in {out / 'pack.json'}")
    if packed.kept:
        output.say(f"{packed.kept} of the shards existed already")
    output.say(f"next: mimsuite data inspect {out} --sheet sheet.png")
    if packed.modality == "image":
        output.say(f"      mimsuite pretrain RECIPE --data {out}")


@app.command()
def verify(
    source: Annotated[str, typer.Argument(metavar="SHARDS", help="Shards, or any other source.")],
    modality: ModalityOption = None,
    channels: ChannelsOption = "native",
    seconds: SecondsOption = 120,
    workers: WorkersOption = 1,
    json: JsonOption = False,
) -> None:
    """Check sizes, counts and checksums, and decode every sample; exit 3 if anything is damaged.

    Example: mimsuite data verify ./shards --workers 4
    """
    from mimsuite.data.packing.verify import verify as check
    from mimsuite.data.unused import Unused

    with progress_of("verifying") as progress:
        reports = check(
            source,
            modality=_modality(modality),
            channels=channels_of(channels),
            seconds=seconds,
            workers=workers,
            progress=progress,
        )
    bad = [report for report in reports if report.problems]
    if json:
        output.print_json({"sound": not bad, "shards": [report.as_json() for report in reports]})
    else:
        rows = [[r.name, str(r.samples), str(len(r.problems) or "-")] for r in reports]
        output.print_table(["shard", "samples", "problems"], rows)
        unused = Unused()
        for report in reports:
            unused.add_json(report.unused)
        unused.warn(source)
        if bad:
            print()
            broken = [[report.name, text] for report in bad for text in report.problems]
            output.print_table(["damaged", "what is wrong"], broken)
    if bad:
        problems = sum(len(report.problems) for report in bad)
        raise DataError(
            f"{source}: {problems} problems in {len(bad)} of {len(reports)} parts; the first: "
            f"{bad[0].problems[0]}"
        )


@app.command()
def convert(
    source: Annotated[
        Path, typer.Argument(metavar="SRC", help="A .dat or .pkl file, or a folder of them.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the clouds, new.")],
    json: JsonOption = False,
) -> None:
    """Convert point sets published as pickles to folders of .npy clouds.

    Reads ModelNet40 with 8,192 points (modelnet40_train_8192pts_fps.dat, with the test split's file
    and modelnet40_shape_names.txt beside it) and few-shot episodes (5way_10shot/0.pkl). Code in a
    pickle is never executed. Other sets need no conversion.

    Example: mimsuite data convert modelnet40_train_8192pts_fps.dat ./modelnet40
    """
    from mimsuite.data.points import pickled_sets

    with progress_of("converting") as progress:
        written = pickled_sets.convert(source, out, progress)
    if json:
        output.print_json({"out": str(out), "modality": "points", "samples": written})
        return
    counts = " and ".join(f"{count} {split}" for split, count in written.items())
    output.say(f"{counts} clouds in {out}")
    output.say(f"next: mimsuite data pack {out} SHARDS")


@app.command()
def index(shards: ShardsArgument, workers: WorkersOption = 1, json: JsonOption = False) -> None:
    """Rebuild the index of every shard, and index.json, by which a large set opens at once.

    Example: mimsuite data index ./shards --workers 4
    """
    from mimsuite.data.packing.indexing import index_shards

    with progress_of("indexing") as progress:
        facts = index_shards(shards, progress, workers)
    if json:
        output.print_json(facts)
        return
    rows = [[item["name"], str(item["samples"]), str(item["bytes"])] for item in facts["shards"]]
    output.print_table(["shard", "samples", "bytes"], rows)
    for line in facts["notes"]:
        output.say(line)


@app.command()
def synth(
    modality: Annotated[
        str,
        typer.Argument(
            metavar="MODALITY", help="image, video, points, grids, scans, bands or scenes."
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder, new.")],
    count: Annotated[int, typer.Option(min=1, help="Samples.")] = 600,
    size: Annotated[
        int | None,
        typer.Option(
            min=8,
            help="Pixels along a side (64; scenes 96), points (1024), or voxels along the longest "
            "side (grids 40, scans 48).",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same samples.")] = 0,
    photos: Annotated[
        str | None, typer.Option(metavar="SRC", help="Video: images to cut the clips from.")
    ] = None,
    parts: Annotated[
        bool,
        typer.Option(
            "--parts", help="Points: part labels. Grids: boxes, voxel labels. Scans: label maps."
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Make labelled synthetic samples for trials.

    Images of shapes, clips of a moving camera, clouds of surfaces, radiance grids of rooms,
    phantoms of ellipsoids as scans, rasters of six bands. Scenes are rendered rooms with the class
    and depth of every pixel, for dense-probe.

    Example: mimsuite data synth image ./shapes --count 600

    Example: mimsuite data synth video ./motion --count 160 --photos ./photos
    """
    from mimsuite.data.synthetic.synth import synthesise

    name = {"images": "image", "videos": "video", "grid": "grids", "scan": "scans"}.get(
        modality, modality
    )
    with progress_of("making") as progress:
        written = synthesise(
            name,
            out,
            count=count,
            size=size,
            seed=seed,
            photos=photos,
            parts=parts,
            progress=progress,
        )
    if json:
        output.print_json({"out": str(out), "modality": name, "samples": written})
        return
    output.say(f"{written['train']} train and {written['test']} test {name} samples in {out}")
    if name == "scenes":
        output.say(f"synthetic, see {out / 'scenes.json'}; next:")
        output.say(f"      mimsuite pretrain image/mae-scenes --data {out / 'images'}")
        output.say(f"      mimsuite dense-probe RUN --data {out}")
        return
    spacing = " --spacing 4" if name == "scans" else ""
    output.say(f"next: mimsuite data pack {out} SHARDS{spacing}")


def channels_of(name: str) -> Any:
    """The value of ``--channels``."""
    known = ("rgb", "gray", "rgba", "gray16", "native")
    if name not in known:
        raise UserError(f"--channels {name}: expected one of {', '.join(known)}")
    return name


def _modality(name: str | None) -> str | None:
    from mimsuite.data import modalities

    return None if name is None else modalities.get(name).name


def _features(name: str | None) -> str | None:
    known = ("none", "normals", "colors")
    if name is not None and name not in known:
        raise UserError(f"--features {name}: expected one of {', '.join(known)}")
    return name


def _spacing(text: str | None) -> tuple[float, float, float] | None:
    if text is None:
        return None
    if text == "keep":
        return 0.0, 0.0, 0.0
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if len(found) not in (1, 3) or not all(0 < mm <= 100 for mm in found):
        raise UserError(f"--spacing {text}: one number of mm, three as 1.5,1.5,2, or keep")
    return found[0], found[-1] if len(found) == 1 else found[1], found[-1]
