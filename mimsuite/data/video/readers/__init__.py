"""Reading video frames by number: one interface, one file per library."""

from mimsuite.data.video.readers.base import VideoDecodeError, VideoReader
from mimsuite.data.video.readers.choice import READERS, open_video, read_video

__all__ = ["READERS", "VideoDecodeError", "VideoReader", "open_video", "read_video"]
