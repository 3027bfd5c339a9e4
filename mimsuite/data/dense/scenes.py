"""Reader of the rendered rooms that `mimsuite data synth scenes` writes::

images/{train,test}/000000.png      RGB
masks/{train,test}/000000.png       gray, class ids; 255 = unlabelled
depth/{train,test}/000000.png       16 bits, millimetres; 0 = unknown
scenes.json                         class names, and the mark that it is synthetic
"""

from __future__ import annotations

import json
from pathlib import Path

from mimsuite.data.dense.listing import DenseListing, chosen_split, files_below, partners
from mimsuite.errors import DataError

SHAPE = "images, masks, depth and scenes.json"
_FACTS, _FORMAT = "scenes.json", "mimsuite-scenes"


def looks_so(root: Path) -> bool:
    """Whether a folder has this layout."""
    return (root / _FACTS).is_file()


def splits(root: Path) -> list[str]:
    """The names of the image folders."""
    folder = root / "images"
    return (
        sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    )


def listing(root: Path, split: str) -> DenseListing:
    """The files of a split.

    Raises:
        DataError: files are missing, or ``scenes.json`` is invalid.
    """
    classes, ignored, synthetic = _facts(root / _FACTS)
    images = files_below(root, f"images/{chosen_split(root, split, splits(root))}")
    beside = {
        kind: partners(root, images, [str(Path(kind, *Path(path).parts[1:])) for path in images])
        for kind in ("masks", "depth")
    }
    return DenseListing(
        root,
        images,
        masks=beside["masks"],
        depths=beside["depth"],
        classes=classes,
        ignored=(ignored,),
        synthetic=synthetic,
    )


def _facts(file: Path) -> tuple[list[str], int, bool]:
    """Class names, the mask value for unlabelled pixels, and whether the scenes are synthetic."""
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        if facts["format"] != _FORMAT:
            raise ValueError(f"format {facts['format']!r}")
        return (
            [str(name) for name in facts["classes"]],
            int(facts["ignore"]),
            bool(facts["synthetic"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise DataError(f"{file}: not what `mimsuite data synth scenes` writes: {fault}") from None
