"""Pascal VOC segmentation (Everingham et al., IJCV 2010), in the layout of ``VOCdevkit/VOC2012``::

    JPEGImages/2007_000032.jpg
    SegmentationClass/2007_000032.png
    ImageSets/Segmentation/{train,val,trainval}.txt     (one file name per line, no extension)

A mask is a palette PNG: 0 is background (a class of its own), 1 to 20 are objects, 255 is ignored.
"""

from __future__ import annotations

from pathlib import Path

from mimsuite.data.dense.listing import DenseListing, chosen_split, partners
from mimsuite.errors import DataError

SHAPE = "JPEGImages, SegmentationClass and ImageSets/Segmentation"
_LISTS = Path("ImageSets/Segmentation")
_IGNORED = 255
CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat"),
    *("chair", "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant"),
    *("sheep", "sofa", "train", "tvmonitor"),
)


def looks_so(root: Path) -> bool:
    """Whether a folder has this layout."""
    return (root / "SegmentationClass").is_dir() and (root / _LISTS).is_dir()


def splits(root: Path) -> list[str]:
    """The names of the list files."""
    return sorted(path.stem for path in (root / _LISTS).glob("*.txt"))


def listing(root: Path, split: str) -> DenseListing:
    """The files of a split; raises a ``MimsuiteError`` where files are missing."""
    file = root / _LISTS / f"{chosen_split(root, split, splits(root))}.txt"
    text = file.read_text(encoding="utf-8", errors="replace")
    names = [line.split()[0] for line in text.splitlines() if line.strip()]
    if not names:
        raise DataError(f"{file}: the list is empty")
    images = [f"JPEGImages/{name}.jpg" for name in names]
    masks = [f"SegmentationClass/{name}.png" for name in names]
    return DenseListing(
        root,
        partners(root, images, images),
        masks=partners(root, images, masks),
        classes=CLASSES,
        ignored=(_IGNORED,),
    )
