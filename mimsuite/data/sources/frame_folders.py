"""Videos as folders of frame images: ``CLASS/VIDEO/00001.jpg`` or ``VIDEO/...``.

Frames are ordered by the numbers in their names, with or without leading zeros.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from mimsuite.data import splits
from mimsuite.data.damage import CorruptSample
from mimsuite.data.decoder import Decoder
from mimsuite.data.image.decode import ImageDecoder
from mimsuite.data.image.kinds import IMAGE_EXTENSIONS
from mimsuite.data.source import Sample
from mimsuite.data.sources.files import FileSource, Listing, folder_splits, unused_files, walk
from mimsuite.data.video.natural_order import natural_key
from mimsuite.data.video.readers import ASSUMED_RATE


class Frames(ABC):
    """A video as frame images; the process that makes the views reads only the frames needed.

    Attributes:
        max_pixels: largest size of a frame in pixels.
    """

    max_pixels: int

    @abstractmethod
    def __len__(self) -> int:
        """Number of frames."""

    @abstractmethod
    def load(self, number: int) -> bytes:
        """The encoded image of a frame; raises CorruptSample."""

    def read(self, choose: Callable[[int], list[int]], reader: str = "auto") -> np.ndarray:
        """(n, H, W, 3) uint8 RGB, each frame decoded once; see
        :func:`~mimsuite.data.video.readers.read_video`.

        Raises:
            CorruptSample: a frame cannot be read, or frames differ in size.
        """
        return self.read_timed(lambda total, rate: choose(total), reader)

    def read_timed(
        self, choose: Callable[[int, float], list[int]], reader: str = "auto"
    ) -> np.ndarray:
        """As :meth:`read`, at the rate that is assumed of frames without one."""
        wanted = choose(len(self), ASSUMED_RATE)
        numbers = sorted(set(wanted))
        frames = dict(zip(numbers, self.decoded(numbers), strict=True))
        return np.stack([frames[number].permute(1, 2, 0).numpy() for number in wanted])

    def decoded(self, numbers: list[int]) -> Iterator[Tensor]:
        """Yield (3, H, W) uint8 RGB frames; raises as :meth:`read`."""
        decoder = ImageDecoder("rgb", self.max_pixels)
        shape = None
        for number in numbers:
            frame = decoder(self.load(number))
            if frame.shape != (shape or frame.shape):
                raise CorruptSample("decode", "its frames are of several sizes")
            shape = frame.shape
            yield frame


@dataclass(frozen=True)
class FrameFolder(Frames):
    """A folder of frames.

    Attributes:
        folder: the folder of the images.
        names: file names in frame order.
        max_pixels: largest size of a frame in pixels.
    """

    folder: Path
    names: tuple[str, ...]
    max_pixels: int

    def __len__(self) -> int:
        return len(self.names)

    def load(self, number: int) -> bytes:
        try:
            return (self.folder / self.names[number]).read_bytes()
        except OSError as fault:
            raise CorruptSample("missing", f"{self.names[number]}: {fault.strerror}") from None


class FrameSource(FileSource):
    """Each folder is a sample; its key is its path below the root."""

    in_frames = True

    def payload(self, shard: int, offset: int) -> bytes:
        """The names of the sample's frames, one per line."""
        folder = self.root / self._paths[shard]
        try:
            names = (entry.name for entry in folder.iterdir() if _is_frame(entry.name))
            found = sorted(names, key=natural_key)
        except OSError as fault:
            raise CorruptSample("missing", fault.strerror or str(fault)) from None
        if not found:
            raise CorruptSample("missing", "no frame in it")
        return "\n".join(found).encode("utf-8", "surrogateescape")

    def sample_bytes(self, shard: int, offset: int) -> int:
        try:
            entries = list((self.root / self._paths[shard]).iterdir())
            return sum(entry.stat().st_size for entry in entries if _is_frame(entry.name))
        except OSError:
            return 0

    def decode(self, sample: Sample) -> FrameFolder:
        assert isinstance(sample.payload, bytes)
        names = sample.payload.decode("utf-8", "surrogateescape").split("\n")
        return FrameFolder(self.root / sample.key, tuple(names), self.decoder.max_pixels)


def open_frames(root: Path, split: str, decoder: Decoder, name: str) -> FrameSource | None:
    """Open the frame folders below ``root``; ``None`` if there are video files or no images.

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
    source = FrameSource(top, listing, name=name, split=split, decoder=decoder)
    frames = {path for path in walk(top, IMAGE_EXTENSIONS) if "/" in path}
    source.unused.update(unused_files(top, frames))
    return source


def _is_frame(name: str) -> bool:
    return name.rpartition(".")[2].lower() in IMAGE_EXTENSIONS and not name.startswith(".")
