"""The interface of video readers.

Letters: n requested frames, H x W pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import numpy as np

from mimsuite.data.local_file import Stored
from mimsuite.data.video.containers import container_of
from mimsuite.data.video.display_matrix import is_mirrored
from mimsuite.errors import CorruptSample

ASSUMED_RATE = 25.0  # frames a second of a video that states none


class VideoDecodeError(CorruptSample):
    """A library cannot read a video; ``str`` gives the library and its message."""

    def __init__(self, reader: str, reason: object) -> None:
        text = " ".join(str(reason).split())[:160] or type(reason).__name__
        super().__init__("decode", f"{reader}: {text}")


def require_plain(reader: str, data: Stored) -> None:
    """Refuse videos that only PyAV reads correctly: streams without an index, mirrored videos.

    Raises:
        CorruptSample: see :func:`container_of`.
        VideoDecodeError: the reader would return other frames, or not mirror them.
    """
    container = container_of(data)
    if not container.indexed:
        raise VideoDecodeError(
            reader, f"does not find frames in .{container.extension} files by their numbers"
        )
    if container.demuxer == "mov" and is_mirrored(data):
        raise VideoDecodeError(reader, "does not mirror frames as the file asks")


class VideoReader(ABC):
    """An open video; a context manager.

    The reading process opens it, reads once and closes it, because libraries keep decoding ahead
    while a reader is open.
    """

    name: str

    @property
    @abstractmethod
    def num_frames(self) -> int:
        """Number of readable frames, at least 1."""

    @property
    @abstractmethod
    def rate(self) -> float | None:
        """Mean number of frames a second by the container; ``None`` if it states none."""

    @abstractmethod
    def _read(self, ids: Sequence[int]) -> np.ndarray:
        """(n, H, W, 3) uint8 RGB; frame numbers are ascending and distinct."""

    @abstractmethod
    def close(self) -> None:
        """Close the file."""

    def read(self, ids: Sequence[int]) -> np.ndarray:
        """(n, H, W, 3) uint8 RGB; frame numbers may come in any order and repeat.

        Raises:
            VideoDecodeError: a frame does not exist or cannot be decoded.
        """
        distinct, places = np.unique(np.asarray(ids, dtype=np.int64), return_inverse=True)
        if not len(distinct) or distinct[0] < 0 or distinct[-1] >= self.num_frames:
            raise VideoDecodeError(self.name, f"no frames {list(ids)} in {self.num_frames}")
        frames = self._read(distinct.tolist())
        if len(frames) != len(distinct):
            raise VideoDecodeError(self.name, f"{len(frames)} of {len(distinct)} frames decoded")
        return frames if len(places) == len(distinct) and _ascending(places) else frames[places]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _ascending(places: np.ndarray) -> bool:
    return bool((np.diff(places) > 0).all())
