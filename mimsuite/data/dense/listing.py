"""The files of a dense set, as every layout's reader returns them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mimsuite.data.sources.files import walk
from mimsuite.errors import DataError, UserError


@dataclass(frozen=True)
class DenseListing:
    """The files of one split: ordered paths relative to ``root``.

    Attributes:
        images: files in any supported image format.
        masks: one PNG for each image; ``None``: the set has no pixel classes.
        depths: one 16-bit PNG for each image; ``None``: the set has no depth.
        classes: class names, indexed by class id.
        shift: subtracted from mask values to give class ids.
        ignored: mask values that stand for no class.
        unit: metres per step of a depth image.
        synthetic: whether the images are rendered, not photographed.
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
    """Sorted paths of the files below ``root/folder``, relative to ``root``.

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
    """``paths``, checked to exist; raises ``DataError`` where some are missing."""
    missing = [path for path in paths if not (root / path).is_file()]
    if missing:
        raise DataError(
            f"{root}: {len(missing)} of {len(images)} images lack their {Path(missing[0]).suffix} "
            f"file, the first is {missing[0]}"
        )
    return list(paths)


def chosen_split(root: Path, wanted: str, existing: Sequence[str]) -> str:
    """``wanted`` if that split exists; else raises a ``UserError`` that lists the splits."""
    if wanted not in existing:
        raise UserError(
            f"{root} has no split '{wanted}'; it has: {', '.join(sorted(existing)) or 'none'}"
        )
    return wanted
