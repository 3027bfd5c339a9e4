"""Which library reads a video: the one that is named, or the first that can."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module

import numpy as np

from mimsuite.data.local_file import Stored
from mimsuite.data.video.containers import container_of
from mimsuite.data.video.readers.base import VideoDecodeError, VideoReader
from mimsuite.errors import UserError

# In the order in which `auto` tries them.
READERS = {
    "decord": "mimsuite.data.video.readers.decord:DecordReader",
    "torchcodec": "mimsuite.data.video.readers.torchcodec:TorchcodecReader",
    "pyav": "mimsuite.data.video.readers.pyav:PyAVReader",
}
_INSTALL = {
    "decord": "`pip install decord`",
    "torchcodec": "`pip install torchcodec` and FFmpeg's libraries (on Debian the package ffmpeg)",
    "pyav": "`pip install 'mimsuite[video]'`",
}
_TOLD = (1, 10, 100, 1000, 10_000, 100_000)  # files, at which a warning tells the count

_others = 0  # files of this process that the first library could not read, and another could


def open_video(data: Stored, reader: str) -> VideoReader:
    """Open an encoded video, or its file, in the process that reads it.

    The container is told by its first bytes: FFmpeg never gets a file of another kind, as a
    playlist that would open further addresses.

    Args:
        reader: a key of :data:`READERS`.

    Raises:
        CorruptSample: no video, one that is cut off, or (``VideoDecodeError``) unreadable.
        UserError: the library is not installed.
    """
    container_of(data)
    made = _class_of(reader)
    if made is None:
        raise UserError(
            f"data.reader={reader} cannot be loaded: it needs {_INSTALL[reader]}; or use "
            f"data.reader=auto"
        )
    return made(data)


def read_video(
    data: Stored, choose: Callable[[int], list[int]], reader: str = "auto"
) -> np.ndarray:
    """(n, H, W, 3) uint8 RGB: an encoded video is opened, read once and closed.

    Args:
        choose: from the number of frames to those that are wanted.
        reader: a key of :data:`READERS`, or ``auto``: the first that can read the file.

    Raises:
        CorruptSample, UserError: see :func:`open_video`.
    """
    if reader != "auto":
        with open_video(data, reader) as video:
            return video.read(choose(video.num_frames))
    first: VideoDecodeError | None = None
    choose = cache(choose)  # it may draw, and shall draw once
    for name in filter(_class_of, READERS):
        try:
            with open_video(data, name) as video:
                frames = video.read(choose(video.num_frames))
        except VideoDecodeError as fault:
            first = first or fault
            continue
        if first is not None:
            _tell(first, name)
        return frames
    if first is None:
        raise UserError("no library that reads video is installed: pip install 'mimsuite[video]'")
    raise first


def _class_of(reader: str) -> Callable[[Stored], VideoReader] | None:
    """``None`` where its library cannot be imported."""
    if reader not in _loaded:
        module, _, name = READERS[reader].partition(":")
        try:
            import_module(_LIBRARY[reader])
            _loaded[reader] = getattr(import_module(module), name)
        except (ImportError, OSError, RuntimeError):  # a wheel without its system libraries
            _loaded[reader] = None
    return _loaded[reader]


_LIBRARY = {"decord": "decord", "torchcodec": "torchcodec", "pyav": "av"}
_loaded: dict[str, Callable[[Stored], VideoReader] | None] = {}


def _tell(fault: VideoDecodeError, name: str) -> None:
    global _others
    _others += 1
    if _others in _TOLD:
        count = "a file" if _others == 1 else f"{_others} files"
        print(f"warning: {count} read by {name} instead ({fault})", file=sys.stderr)
