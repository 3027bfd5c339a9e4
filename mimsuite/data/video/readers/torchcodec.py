"""torchcodec, which uses the system's FFmpeg libraries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torchcodec import ffmpeg_major_version

from mimsuite.data.local_file import Stored
from mimsuite.data.video.readers.base import VideoDecodeError, VideoReader, require_plain

if ffmpeg_major_version is None:
    raise ImportError("torchcodec finds no FFmpeg libraries")


class TorchcodecReader(VideoReader):
    """See :class:`VideoReader`; seeks by an index of all packets, exact except in MPEG streams."""

    name = "torchcodec"

    def __init__(self, data: Stored) -> None:
        from torchcodec.decoders import VideoDecoder

        require_plain(self.name, data)
        try:
            self._decoder: Any = VideoDecoder(
                data if isinstance(data, bytes) else data.path,
                dimension_order="NHWC",
                num_ffmpeg_threads=1,
                seek_mode="exact",
            )
            self._count = len(self._decoder)
        except (RuntimeError, ValueError, TypeError) as fault:
            raise VideoDecodeError(self.name, fault) from None
        if self._count < 1:
            raise VideoDecodeError(self.name, "no frame in it")

    @property
    def num_frames(self) -> int:
        return self._count

    @property
    def rate(self) -> float | None:
        stated = self._decoder.metadata.average_fps
        return float(stated) if stated else None

    def _read(self, ids: Sequence[int]) -> np.ndarray:
        try:
            frames: np.ndarray = self._decoder.get_frames_at(list(ids)).data.numpy()
        except (RuntimeError, ValueError, IndexError) as fault:
            raise VideoDecodeError(self.name, fault) from None
        return frames

    def close(self) -> None:
        self._decoder = None
