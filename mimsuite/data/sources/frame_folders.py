"""Videos stored as folders of pictures, one a frame: ``CLASS/VIDEO/00001.jpg`` or ``VIDEO/...``.

Frames follow each other in the order of the numbers in their names, with or without leading zeros.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from mimsuite.data import splits
from mimsuite.data.damage import CorruptSample
from mimsuite.data.decoder import Decoder
from mimsuite.data.image.decode import ImageDecoder
from mimsuite.data.image.kinds import IMAGE_EXTENSIONS
from mimsuite.data.source import Sample
from mimsuite.data.sources.files import FileSource, Listing, folder_splits, walk
from mimsuite.data.video.natural_order import natural_key


@dataclass(frozen=True)
class FrameFolder:
    """A folder of frames; those that are wanted are read in the process that cuts its views.

    Attributes:
        folder: where they are.
        names: of the pictures, in the order of the frames.
        max_pixels: of a frame.
    """

    folder: Path
    names: tuple[str, ...]
    max_pixels: int

    def read(self, choose: Callable[[int], list[int]], reader: str = "auto") -> np.ndarray:
        """(n, H, W, 3) uint8 RGB; see :func:`~mimsuite.data.video.readers.read_video`."""
        decoder = ImageDecoder("rgb", self.max_pixels)
        wanted = choose(len(self.names))
        return stacked(wanted, lambda number: self._frame(self.names[number], decoder))

    def _frame(self, name: str, decoder: Decoder) -> Tensor:
        try:
            data = (self.folder / name).read_bytes()
        except OSError as fault:
            raise CorruptSample("missing", f"{name}: {fault.strerror}") from None
        return decoder(data)


def stacked(wanted: list[int], decode: Callable[[int], Tensor]) -> np.ndarray:
    """(n, H, W, 3) the frames of these numbers; each is decoded once, to (3, H, W).

    Raises:
        CorruptSample: they are not of one size, or what ``decode`` raises.
    """
    frames = {number: decode(number) for number in sorted(set(wanted))}
    if len({frame.shape for frame in frames.values()}) > 1:
        raise CorruptSample("decode", "its frames are of several sizes")
    return np.stack([frames[number].permute(1, 2, 0).numpy() for number in wanted])


class FrameSource(FileSource):
    """Each folder is a sample; its key is its path below the root."""

    def payload(self, shard: int, offset: int) -> bytes:
        """The names of its frames, a line each."""
        folder = self.root / self._paths[shard]
        try:
            names = (entry.name for entry in folder.iterdir() if _is_frame(entry.name))
            found = sorted(names, key=natural_key)
        except OSError as fault:
            raise CorruptSample("missing", fault.strerror or str(fault)) from None
        if not found:
            raise CorruptSample("missing", "no frame in it")
        return "\n".join(found).encode("utf-8", "surrogateescape")

    def decode(self, sample: Sample) -> Any:
        assert isinstance(sample.payload, bytes)
        names = sample.payload.decode("utf-8", "surrogateescape").split("\n")
        return FrameFolder(self.root / sample.key, tuple(names), self.decoder.max_pixels)


def open_frames(root: Path, split: str, decoder: Decoder, name: str) -> FrameSource | None:
    """The folders of frames below ``root``; ``None`` where there are video files or no pictures.

    Raises:
        UserError: no such split.
    """
    if next(walk(root, decoder.extensions), None) is not None:
        return None
    parts = folder_splits(root, IMAGE_EXTENSIONS)
    split = splits.choose(name, split, parts)
    found = {
        part: sorted({path.rpartition("/")[0] for path in walk(folder, IMAGE_EXTENSIONS)} - {""})
        for part, folder in (parts or {split: root}).items()
    }
    paths = found[split]
    if not paths:
        return None
    labels, classes = [-1] * len(paths), None
    if all("/" in path for path in paths):
        every = {path.partition("/")[0] for part in found.values() for path in part}
        classes = sorted(every)
        labels = [classes.index(path.partition("/")[0]) for path in paths]
    top = parts.get(split, root)
    listing = Listing(paths, labels, classes)
    return FrameSource(top, listing, name=name, split=split, decoder=decoder)


def _is_frame(name: str) -> bool:
    return name.rpartition(".")[2].lower() in IMAGE_EXTENSIONS and not name.startswith(".")
