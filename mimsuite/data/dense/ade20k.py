"""ADE20K's scene parsing benchmark (Zhou et al., CVPR 2017), as ``ADEChallengeData2016`` unpacks::

    images/{training,validation}/ADE_train_00000001.jpg
    annotations/{training,validation}/ADE_train_00000001.png
    objectInfo150.txt                                         (names of the classes; may be missing)

A mask is a gray PNG: 1 to 150 are the classes, 0 is anything else and counts for nothing.
"""

from __future__ import annotations

from pathlib import Path

from mimsuite.data.dense.listing import DenseListing, chosen_split, files_below, partners

SHAPE = "images/training and annotations/training"
_FOLDERS = {"train": "training", "val": "validation"}
_CLASSES = 150


def looks_so(root: Path) -> bool:
    """Whether a folder has this layout."""
    return all((root / name / "training").is_dir() for name in ("images", "annotations"))


def splits(root: Path) -> list[str]:
    """``train`` and ``val``, those that are there."""
    return [name for name, folder in _FOLDERS.items() if (root / "images" / folder).is_dir()]


def listing(root: Path, split: str) -> DenseListing:
    """The files of a split; raises a ``MimsuiteError`` for files that are missing."""
    folder = _FOLDERS[chosen_split(root, split, splits(root))]
    images = files_below(root, f"images/{folder}")
    masks = [str(Path("annotations", *Path(path).parts[1:]).with_suffix(".png")) for path in images]
    return DenseListing(
        root,
        images,
        masks=partners(root, images, masks),
        classes=_names(root / "objectInfo150.txt"),
        shift=1,
        ignored=(0,),
    )


def _names(file: Path) -> list[str]:
    """The last column of the table that comes with the set, or else numbers from 1."""
    numbers = [str(number + 1) for number in range(_CLASSES)]
    if not file.is_file():
        return numbers
    rows = file.read_text(encoding="utf-8", errors="replace").splitlines()[1:]
    names = [row.split("\t")[-1].split(",")[0].strip() for row in rows if row.strip()]
    return names if len(names) == _CLASSES else numbers
