"""decord, with its own FFmpeg: exact and the fastest, but no AV1 and no MPEG streams."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from mimsuite.data.local_file import Stored
from mimsuite.data.video.readers.base import VideoDecodeError, VideoReader, require_plain

_RETRIES = "64"  # retries at the end of a damaged file; decord's default takes seconds


class DecordReader(VideoReader):
    """See :class:`VideoReader`; one thread per reader, because several take more total time."""

    name = "decord"

    def __init__(self, data: Stored) -> None:
        require_plain(self.name, data)
        os.environ.setdefault("DECORD_EOF_RETRY_MAX", _RETRIES)
        import decord

        decord.logging.set_level(decord.logging.QUIET)
        try:
            self._reader: Any = decord.VideoReader(
                io.BytesIO(data) if isinstance(data, bytes) else data.path, num_threads=1
            )
            self._count = len(self._reader)
        except Exception as fault:  # decord raises many types
            raise VideoDecodeError(self.name, fault) from None
        if self._count < 1:
            raise VideoDecodeError(self.name, "no frame in it")

    @property
    def num_frames(self) -> int:
        return self._count

    @property
    def rate(self) -> float | None:
        stated = self._reader.get_avg_fps()
        return float(stated) if stated else None

    def _read(self, ids: Sequence[int]) -> np.ndarray:
        try:
            frames: np.ndarray = self._reader.get_batch(ids).asnumpy()
        except Exception as fault:
            raise VideoDecodeError(self.name, fault) from None
        return frames

    def close(self) -> None:
        self._reader = None
