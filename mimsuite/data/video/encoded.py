"""An encoded video, as bytes or as a file, before its frames are chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mimsuite.data.damage import CorruptSample
from mimsuite.data.decoder import Channels, Decoder
from mimsuite.data.local_file import Stored
from mimsuite.data.modalities import get
from mimsuite.data.source import Payload
from mimsuite.data.video.readers import read_timed
from mimsuite.errors import UserError


@dataclass(frozen=True)
class EncodedVideo:
    """A video file; the process that makes the views reads frames from it.

    Attributes:
        data: the bytes of the file, or its location.
        max_pixels: largest size of a frame in pixels; see ``data.max_pixels``.
    """

    data: Stored
    max_pixels: int

    def read(self, choose: Callable[[int], list[int]], reader: str = "auto") -> np.ndarray:
        """(n, H, W, 3) uint8; see :func:`~mimsuite.data.video.readers.read_video`."""
        return self.read_timed(lambda total, rate: choose(total), reader)

    def read_timed(
        self, choose: Callable[[int, float], list[int]], reader: str = "auto"
    ) -> np.ndarray:
        """(n, H, W, 3) uint8; see :func:`~mimsuite.data.video.readers.read_timed`."""
        frames = read_timed(self.data, choose, reader)
        _, height, width, _ = frames.shape
        if height * width > self.max_pixels:
            raise CorruptSample(
                "too-large",
                f"frames of {width} x {height} pixels are more than data.max_pixels="
                f"{self.max_pixels}",
            )
        return frames


class VideoDecoder(Decoder):
    """Wraps a stored video in an :class:`EncodedVideo`; frames are RGB."""

    sequences = True
    in_place = True
    channels: Channels = "rgb"
    channel_count = 3

    def __init__(self, channels: str = "rgb", max_pixels: int = 64_000_000) -> None:
        if channels != "rgb":
            raise UserError(f"data.channels={channels}: video is read as rgb")
        self.max_pixels = max_pixels

    @property
    def extensions(self) -> tuple[str, ...]:
        return get("video").stored

    def __call__(self, payload: Payload) -> EncodedVideo:
        if not isinstance(payload, Stored):
            raise CorruptSample("decode", "an array is no video file")
        return EncodedVideo(payload, self.max_pixels)
