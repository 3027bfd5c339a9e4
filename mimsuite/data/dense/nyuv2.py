"""NYU Depth V2 (Silberman et al., ECCV 2012) as image files, in the layout common to monocular
depth code: one folder for each scene, each frame beside its depth::

    sync/bathroom_0001/rgb_00000.jpg                     and sync_depth_00000.png     (train)
    official_splits/test/bathroom/rgb_00045.jpg          and sync_depth_00045.png     (test)

or the same below ``train/`` and ``test/``. Depth is a 16-bit PNG in millimetres; 0 is unknown. The
original ``.mat`` file is not read. Frames without a depth file are left out, as the usual training
lists do.
"""

from __future__ import annotations

from pathlib import Path

from mimsuite.data.dense.listing import DenseListing, chosen_split, files_below
from mimsuite.errors import DataError

SHAPE = "sync and official_splits/test, or train and test"
_FOLDERS = {"train": ("sync", "train"), "test": ("official_splits/test", "test")}
_IMAGE, _DEPTH = "rgb_", "sync_depth_"


def looks_so(root: Path) -> bool:
    """Whether a folder has this layout."""
    if any((root / names[0]).is_dir() for names in _FOLDERS.values()):
        return True
    return any(
        next((root / name).glob(f"*/{_DEPTH}*.png"), None) is not None for name in ("train", "test")
    )


def splits(root: Path) -> list[str]:
    """Those of ``train`` and ``test`` that exist."""
    return [split for split in _FOLDERS if _folder(root, split) is not None]


def listing(root: Path, split: str) -> DenseListing:
    """The files of a split.

    Raises:
        DataError: no frame has a depth file beside it.
    """
    folder = _folder(root, chosen_split(root, split, splits(root)))
    assert folder is not None
    found = [Path(path) for path in files_below(root, folder)]
    depth_of = {
        str(path): str(path.with_name(f"{_DEPTH}{path.stem.removeprefix(_IMAGE)}.png"))
        for path in found
        if path.name.startswith(_IMAGE)
    }
    known = {str(path) for path in found}
    images = [image for image, depth in depth_of.items() if depth in known]
    if not images:
        raise DataError(f"{root / folder}: no {_IMAGE}*.jpg with a {_DEPTH}*.png beside it")
    return DenseListing(root, images, depths=[depth_of[image] for image in images])


def _folder(root: Path, split: str) -> str | None:
    return next((name for name in _FOLDERS[split] if (root / name).is_dir()), None)
