"""The README's picture: what is seen, what is left of it, and what is rebuilt, in four modalities.

Trains four tiny models on data that is embedded or made, one after the other, and puts pictures
that `mimsuite reconstruct` draws of them on one sheet. About eight minutes of one CPU core; a call
that was stopped goes on where it was.

    python tools/readme_picture.py --out docs/pictures/four.png
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

WIDTH, GAP, LABEL = 1000, 16, 34  # pixels


@dataclass(frozen=True)
class Row:
    """One modality.

    Attributes:
        name: of its run.
        label: above its pictures.
        data: what `--data` and `--input` take.
        train: the recipe and changed keys of `pretrain`.
        made: arguments of `data synth`; none: the data is embedded.
        shown: which of eight pictures are on the sheet, side by side.
    """

    name: str
    label: str
    data: str
    train: tuple[str, ...]
    made: tuple[str, ...] = ()
    shown: tuple[int, ...] = (0, 1)


ROWS = (
    Row(
        "image",
        "Image: MAE, 75 % of the patches hidden",
        "embedded:fashion-mnist",
        (
            *("image/mae-tiny-fashion", "model.encoder.patch_size=4", "target.normalize=false"),
            *("schedule.epochs=20", "schedule.warmup_epochs=2"),
        ),
        shown=(3, 7),
    ),
    Row(
        "video",
        "Video: VideoMAE, half of the tubelets hidden; four of 16 frames",
        "motion",
        (
            *("video/videomae2-tiny-motion", "mask.decoder_ratio=0", "mask.kind=spacetime"),
            *("mask.ratio=0.5", "augment.crop=resize", "augment.repeats=1", "optim.lr=3e-3"),
            *("train.global_batch=16", "schedule.epochs=80"),
        ),
        made=("video", "--count", "200", "--photos", "embedded:fashion-mnist"),
        shown=(3,),
    ),
    Row(
        "points",
        "Point cloud: Point-MAE, 9 of 16 groups hidden",
        "embedded:furniture",
        ("points/mae-tiny-furniture",),
        shown=(0, 2),
    ),
    Row(
        "volume",
        "Radiance field: NeRF-MAE, half of the volume hidden; from the side and from above",
        "rooms",
        (
            *("volume/nerf-mae-tiny-rooms", "mask.ratio=0.5", "optim.lr=3e-3"),
            *("train.global_batch=8", "schedule.epochs=40"),
        ),
        made=("grids", "--count", "240", "--size", "32", "--seed", "1"),
    ),
)


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the README's picture.")
    parser.add_argument("--out", type=Path, default=Path("docs/pictures/four.png"))
    parser.add_argument("--work", type=Path, default=Path("runs/readme"), help="folder of the runs")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: does it run at all?")
    options = parser.parse_args()
    strips = [strip(row, options.work, options.smoke) for row in ROWS]
    sheet = Image.new("RGB", (WIDTH + 2 * GAP, sum(one.height for one in strips)), "white")
    top = 0
    for one in strips:
        sheet.paste(one, (GAP, top))
        top += one.height
    options.out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(options.out, optimize=True)
    print(options.out)
    return 0


def strip(row: Row, work: Path, smoke: bool) -> Image.Image:
    """Train, reconstruct, and put the pictures of a modality side by side under its label."""
    run, pictures, data = work / row.name, work / f"{row.name}-pictures", row.data
    if row.made:
        data = str(work / row.data)
        if not Path(data).exists():
            made = [*row.made[:2], "24", *row.made[3:]] if smoke else row.made
            mimsuite("data", "synth", made[0], data, *made[1:])
    keys = [key for key in row.train if not (smoke and key.startswith("schedule."))]
    more = ["--smoke"] if smoke else []
    source = ("--data", data, "data.workers=0", "train.threads=1")
    mimsuite("pretrain", *keys, *source, "--out", run, "--resume", "auto", *more)
    mimsuite("reconstruct", run, "--input", data, "--n", "8", "--out", pictures)
    drawn = sorted(pictures.glob("[0-9]*.png"))
    width = (WIDTH - GAP * (len(row.shown) - 1)) // len(row.shown)
    cells = [scaled(Image.open(drawn[number]).convert("RGB"), width) for number in row.shown]
    whole = Image.new("RGB", (WIDTH, LABEL + max(cell.height for cell in cells)), "white")
    font = ImageFont.load_default(17)
    ImageDraw.Draw(whole).text((GAP, 10), row.label, fill=(31, 41, 55), font=font)
    for number, cell in enumerate(cells):
        whole.paste(cell, (number * (width + GAP), LABEL))
    return whole


def scaled(picture: Image.Image, width: int) -> Image.Image:
    size = (width, round(picture.height * width / picture.width))
    return picture.resize(size, Image.Resampling.LANCZOS)


def mimsuite(*words: object) -> None:
    """Run a command; ends this where it fails."""
    command = [sys.executable, "-m", "mimsuite", *map(str, words)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main())
