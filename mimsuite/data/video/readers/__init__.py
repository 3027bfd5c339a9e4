"""Reading frames of a video by their numbers: one interface, one file per library."""

from mimsuite.data.video.readers.base import VideoDecodeError, VideoReader
from mimsuite.data.video.readers.choice import READERS, open_video, read_video

__all__ = ["READERS", "VideoDecodeError", "VideoReader", "open_video", "read_video"]
