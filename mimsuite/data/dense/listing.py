"""Which files a set consists of: what every layout's reader finds out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mimsuite.data.sources.files import walk
from mimsuite.errors import DataError, UserError


@dataclass(frozen=True)
class DenseListing:
    """The files of one split, as paths relative to ``root``, in order.

    Attributes:
        images: of any format that images have.
        masks: PNG, one for each image; ``None``: classes of pixels are not known.
        depths: PNG of 16 bits, likewise.
        classes: names; the class of a pixel is an index into them.
        shift: what is subtracted from a mask's values to give classes.
        ignored: values of a mask that stand for no class.
        unit: metres that one step of a depth image stands for.
        synthetic: made, not photographed.
    """

    root: Path
    images: Sequence[str]
    masks: Sequence[str] | None = None
    depths: Sequence[str] | None = None
    classes: Sequence[str] = ()
    shift: int = 0
    ignored: tuple[int, ...] = ()
    unit: float = 1e-3
    synthetic: bool = False


IMAGES = ("jpg", "jpeg", "png")


def files_below(root: Path, folder: str, extensions: tuple[str, ...] = IMAGES) -> list[str]:
    """Sorted paths, relative to ``root``, of files below one of its folders.

    Raises:
        DataError: there are none.
    """
    place = root / folder
    found = sorted(f"{folder}/{path}" for path in walk(place, extensions)) if place.is_dir() else []
    if not found:
        looked_for = ", ".join(f".{extension}" for extension in extensions)
        raise DataError(f"{place}: no files there (looked for {looked_for})")
    return found


def partners(root: Path, images: Sequence[str], paths: Sequence[str]) -> list[str]:
    """``paths``, of which each is looked for; raises ``DataError`` where some are missing."""
    missing = [path for path in paths if not (root / path).is_file()]
    if missing:
        raise DataError(
            f"{root}: {len(missing)} of {len(images)} images lack their {Path(missing[0]).suffix} "
            f"file, the first is {missing[0]}"
        )
    return list(paths)


def chosen_split(root: Path, wanted: str, existing: Sequence[str]) -> str:
    """The wanted split; raises ``UserError``, naming those that there are, where it is none."""
    if wanted not in existing:
        raise UserError(
            f"{root} has no split '{wanted}'; it has: {', '.join(sorted(existing)) or 'none'}"
        )
    return wanted
