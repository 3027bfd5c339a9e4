"""`mimsuite data`: look at data, pack it, check it, make some."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from mimsuite.cli import output
from mimsuite.cli.options import JsonOption
from mimsuite.errors import DataError, UserError

app = typer.Typer(no_args_is_help=True, help="Pack, inspect, verify and make data.")

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


@app.command()
def inspect(
    source: SourceArgument,
    sheet: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Write a sheet of its pictures.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Of the sheet; default: the first.")] = None,
    channels: ChannelsOption = "native",
    json: JsonOption = False,
) -> None:
    """Samples, sizes and classes of a source.

    Example: mimsuite data inspect embedded:fashion-mnist --sheet fashion.png
    """
    from mimsuite.data import inspection, open_source

    kind = _channels(channels)
    figures = inspection.inspect(source, channels=kind)
    if sheet is not None:
        names = list(figures["splits"])
        shown = open_source(
            source, split or ("train" if "train" in names else names[0]), channels=kind
        )
        figures["sheet"] = str(inspection.contact_sheet(shown, sheet))
    if json:
        output.print_json(figures)
        return
    _show_splits(figures["splits"])
    if sheet is not None:
        output.say(f"wrote {sheet}")


@app.command()
def pack(
    source: SourceArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the shards, new.")],
    shard_size: Annotated[int, typer.Option(min=1, help="Samples a shard.")] = 2048,
    resize: Annotated[
        int | None, typer.Option(min=1, help="Shrink larger images to this short side, pixels.")
    ] = None,
    quality: Annotated[
        int | None, typer.Option(min=1, max=100, help="Encode all images as JPEG of this quality.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="One split only; default: all.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the order of samples.")] = 0,
    in_order: Annotated[
        bool, typer.Option("--in-order", help="Keep the source's order of samples.")
    ] = False,
    workers: WorkersOption = 1,
    json: JsonOption = False,
) -> None:
    """Write a source as WebDataset tar shards, with their indexes and checksums.

    Example: mimsuite data pack ./photos ./shards --resize 256
    """
    from mimsuite.data.pack import PackOptions
    from mimsuite.data.pack import pack as write

    options = PackOptions(
        shard_size=shard_size,
        resize=resize,
        quality=quality,
        split=split,
        seed=None if in_order else seed,
        workers=workers,
    )
    with _progress("packing") as progress:
        packed = write(source, out, options, progress)
    facts = packed.as_json()
    for damage in packed.damaged:
        output.warn(f"left out {damage}")
    if json:
        output.print_json(facts)
        return
    output.say(
        f"{facts['samples']} samples in {len(packed.shards)} shards, "
        f"{facts['bytes'] / 1e6:.1f} MB, in {out}"
    )
    output.say(f"next: mimsuite pretrain RECIPE --data {out}")


@app.command()
def verify(
    source: Annotated[str, typer.Argument(metavar="SHARDS", help="Shards, or any other source.")],
    channels: ChannelsOption = "native",
    workers: WorkersOption = 1,
    json: JsonOption = False,
) -> None:
    """Check sizes, counts and checksums, and decode every image; exit 3 if anything is damaged.

    Example: mimsuite data verify ./shards --workers 4
    """
    from mimsuite.data.verify import verify as check

    with _progress("verifying") as progress:
        reports = check(source, channels=_channels(channels), workers=workers, progress=progress)
    bad = [report for report in reports if report.problems]
    if json:
        output.print_json({"sound": not bad, "shards": [report.as_json() for report in reports]})
    else:
        output.print_table(
            ["shard", "samples", "problems", "first problem"],
            [
                [r.name, str(r.samples), str(len(r.problems)), (r.problems or ["none"])[0]]
                for r in reports
            ],
        )
    if bad:
        problems = sum(len(report.problems) for report in bad)
        raise DataError(
            f"{source}: {problems} problems in {len(bad)} of {len(reports)} parts; the first: "
            f"{bad[0].problems[0]}"
        )


@app.command()
def index(shards: ShardsArgument, json: JsonOption = False) -> None:
    """Build the index of every shard anew, and index.json where a folder has none.

    Example: mimsuite data index ./shards
    """
    from mimsuite.data.indexing import index_shards

    with _progress("indexing") as progress:
        facts = index_shards(shards, progress)
    if json:
        output.print_json(facts)
        return
    rows = [[item["name"], str(item["samples"]), str(item["bytes"])] for item in facts["shards"]]
    output.print_table(["shard", "samples", "bytes"], rows)
    for line in facts["notes"]:
        output.say(line)


@app.command()
def synth(
    modality: Annotated[str, typer.Argument(metavar="MODALITY", help="images")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder, new.")],
    count: Annotated[int, typer.Option(min=1, help="Samples.")] = 600,
    size: Annotated[int, typer.Option(min=8, help="Height and width in pixels.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same images.")] = 0,
    json: JsonOption = False,
) -> None:
    """Make labelled samples to try things out with.

    Example: mimsuite data synth images ./shapes --count 600
    """
    from mimsuite.data.synth import synthesise_images

    if modality != "images":
        raise UserError(f"no samples of '{modality}' can be made; there is: images")
    with _progress("drawing") as progress:
        written = synthesise_images(out, count=count, size=size, seed=seed, progress=progress)
    if json:
        output.print_json({"out": str(out), "samples": written})
        return
    output.say(f"{written['train']} train and {written['test']} test images in {out}")


def _channels(name: str) -> Any:
    known = ("rgb", "gray", "rgba", "gray16", "native")
    if name not in known:
        raise UserError(f"--channels {name}: it is one of {', '.join(known)}")
    return name


def _show_splits(splits: dict[str, dict[str, Any]]) -> None:
    def sizes(split: dict[str, Any], side: str) -> str:
        found = split[side]
        return f"{found['min']}-{found['max']} ({found['median']})" if found else "-"

    output.print_table(
        ["split", "samples", "MB", "labelled", "height", "width", "channels", "corrupt"],
        [
            [
                name,
                str(split["samples"]),
                f"{split['bytes'] / 1e6:.1f}",
                str(split["labelled"]),
                sizes(split, "height"),
                sizes(split, "width"),
                ", ".join(split["channels"]),
                f"{len(split['corrupt'])} of {split['looked_at']} seen",
            ]
            for name, split in splits.items()
        ],
    )
    names = list(dict.fromkeys(label for split in splits.values() for label in split["classes"]))
    if names:
        print()
        output.print_table(
            ["class", *splits],
            [[n, *(str(split["classes"].get(n, 0)) for split in splits.values())] for n in names],
        )


@contextmanager
def _progress(verb: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr, where that is a terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    with Progress(
        TextColumn(verb),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task(verb, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
