"""ADE20K scene parsing (Zhou et al., CVPR 2017), in the layout of ``ADEChallengeData2016``::

    images/{training,validation}/ADE_train_00000001.jpg
    annotations/{training,validation}/ADE_train_00000001.png
    objectInfo150.txt                                         (class names; optional)

A mask is a gray PNG: 1 to 150 are the classes, 0 is unlabelled and ignored.
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
    """Those of ``train`` and ``val`` that exist."""
    return [name for name, folder in _FOLDERS.items() if (root / "images" / folder).is_dir()]


def listing(root: Path, split: str) -> DenseListing:
    """The files of a split; raises a ``MimsuiteError`` where files are missing."""
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
    """Class names: the last column of the set's own table, or numbers from 1 without it."""
    numbers = [str(number + 1) for number in range(_CLASSES)]
    if not file.is_file():
        return numbers
    rows = file.read_text(encoding="utf-8", errors="replace").splitlines()[1:]
    names = [row.split("\t")[-1].split(",")[0].strip() for row in rows if row.strip()]
    return names if len(names) == _CLASSES else numbers
