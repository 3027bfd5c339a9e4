"""PyAV, with its own FFmpeg: reads formats that decord does not, such as AV1."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mimsuite.data.local_file import Stored, opened
from mimsuite.data.video.containers import container_of
from mimsuite.data.video.files import turned
from mimsuite.data.video.readers.base import VideoDecodeError, VideoReader


class PyAVReader(VideoReader):
    """See :class:`VideoReader`. Frames are numbered in display order."""

    name = "pyav"

    def __init__(self, data: Stored) -> None:
        import av

        av.logging.set_level(None)
        self._fault: Any = av.FFmpegError
        self._data, self._container = data, container_of(data)
        try:
            self._open()
            packets = [  # only their fields: the packets together are the whole file
                (p.pts, p.is_keyframe)
                for p in self._file.demux(self._stream)
                if p.size and not p.is_discard
            ]
        except (self._fault, IndexError, AttributeError) as fault:
            raise VideoDecodeError(self.name, fault) from None
        if not packets:
            raise VideoDecodeError(self.name, "no frame in it")
        self._count = len(packets)
        self._times = sorted(time for time, _ in packets if time is not None)
        self._keys = sorted(time for time, is_key in packets if is_key and time is not None)
        if self._keys and not self._container.indexed:
            # A recording may start anywhere; frames before the first key frame cannot be decoded.
            self._count -= bisect_left(self._times, self._keys[0])
            self._times = self._times[bisect_left(self._times, self._keys[0]) :]

    def _open(self) -> None:
        import av

        self._file: Any = av.open(opened(self._data), format=self._container.demuxer)
        self._stream: Any = self._file.streams.video[0]
        self._stream.codec_context.thread_count = 1

    @property
    def num_frames(self) -> int:
        return self._count

    @property
    def rate(self) -> float | None:
        stated = self._stream.average_rate
        return float(stated) if stated else None

    def _read(self, ids: Sequence[int]) -> np.ndarray:
        try:
            timed = len(set(self._times)) == self._count and self._keys
            found = self._by_time(ids) if timed else self._by_counting(ids)
            return np.stack([turned(frame).to_ndarray(format="rgb24") for frame in found])
        except (self._fault, ValueError) as fault:
            raise VideoDecodeError(self.name, fault) from None

    def _by_time(self, ids: Sequence[int]) -> Iterator[Any]:
        """Decode from the key frame before each frame, or on from the previous frame. Without an
        index, decode from the start, because FFmpeg only estimates positions and times."""
        frames: Iterator[Any] = iter(())
        here: int | None = None
        for number in ids:
            wanted = self._times[number]
            key = self._keys[max(0, bisect_right(self._keys, wanted) - 1)]
            if here is None or (key > here and self._container.indexed):
                self._go_to(key)
                frames = self._file.decode(self._stream)
            frame = next((f for f in frames if f.pts is not None and f.pts >= wanted), None)
            if frame is None or frame.pts != wanted:
                raise ValueError(f"frame {number} is missing")
            here = wanted
            yield frame

    def _go_to(self, key: int) -> None:
        if self._container.indexed:
            self._file.seek(key, stream=self._stream)
        else:
            self._file.close()
            self._open()

    def _by_counting(self, ids: Sequence[int]) -> Iterator[Any]:
        """Files without timestamps: decode everything and count frames."""
        self._file.seek(0)
        wanted = set(ids)
        for number, frame in enumerate(self._file.decode(self._stream)):
            if number in wanted:
                yield frame
            if number >= ids[-1]:
                break

    def close(self) -> None:
        self._file.close()
