"""Frames by PyAV, which brings its own FFmpeg: reads what decord does not, as AV1."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mimsuite.data.readers.base import VideoDecodeError, VideoReader
from mimsuite.formats.containers import container_of
from mimsuite.formats.video import turned


class PyAVReader(VideoReader):
    """See :class:`VideoReader`. Frames are numbered in the order in which they are shown."""

    name = "pyav"

    def __init__(self, data: bytes) -> None:
        import av

        av.logging.set_level(None)
        self._fault: Any = av.FFmpegError
        try:
            opened: Any = av.open(io.BytesIO(data), format=container_of(data).demuxer)
            self._file = opened
            self._stream: Any = self._file.streams.video[0]
            self._stream.codec_context.thread_count = 1
            packets = [p for p in opened.demux(self._stream) if p.size and not p.is_discard]
        except (self._fault, IndexError, AttributeError) as fault:
            raise VideoDecodeError(self.name, fault) from None
        if not packets:
            raise VideoDecodeError(self.name, "no frame in it")
        self._count = len(packets)
        self._times = sorted(p.pts for p in packets if p.pts is not None)
        self._keys = sorted(p.pts for p in packets if p.is_keyframe and p.pts is not None)

    @property
    def num_frames(self) -> int:
        return self._count

    def _read(self, ids: Sequence[int]) -> np.ndarray:
        try:
            timed = len(set(self._times)) == self._count and self._keys
            found = self._by_time(ids) if timed else self._by_counting(ids)
            return np.stack([turned(frame).to_ndarray(format="rgb24") for frame in found])
        except (self._fault, ValueError) as fault:
            raise VideoDecodeError(self.name, fault) from None

    def _by_time(self, ids: Sequence[int]) -> Iterator[Any]:
        """From the key frame before each frame on, or from where the one before it was."""
        frames: Iterator[Any] = iter(())
        here: int | None = None
        for number in ids:
            wanted = self._times[number]
            key = self._keys[max(0, bisect_right(self._keys, wanted) - 1)]
            if here is None or key > here:
                self._file.seek(key, stream=self._stream)
                frames = self._file.decode(self._stream)
            frame = next((f for f in frames if f.pts is not None and f.pts >= wanted), None)
            if frame is None or frame.pts != wanted:
                raise ValueError(f"frame {number} is missing")
            here = wanted
            yield frame

    def _by_counting(self, ids: Sequence[int]) -> Iterator[Any]:
        """Files without times: everything is decoded."""
        self._file.seek(0)
        wanted = set(ids)
        for number, frame in enumerate(self._file.decode(self._stream)):
            if number in wanted:
                yield frame
            if number >= ids[-1]:
                break

    def close(self) -> None:
        self._file.close()
