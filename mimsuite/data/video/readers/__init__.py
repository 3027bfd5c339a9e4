"""Reading video frames by number: one interface, one file per library."""

from mimsuite.data.video.readers.base import ASSUMED_RATE, VideoDecodeError, VideoReader
from mimsuite.data.video.readers.choice import READERS, open_video, read_timed, read_video

__all__ = [
    "ASSUMED_RATE",
    "READERS",
    "VideoDecodeError",
    "VideoReader",
    "open_video",
    "read_timed",
    "read_video",
]
