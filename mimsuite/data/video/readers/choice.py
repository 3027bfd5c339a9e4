"""Choice of the video library: the named one, or the first that can read the file."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module

import numpy as np

from mimsuite.data.local_file import Stored
from mimsuite.data.video.containers import container_of
from mimsuite.data.video.readers.base import ASSUMED_RATE, VideoDecodeError, VideoReader
from mimsuite.errors import UserError

# `auto` tries them in this order.
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
_WARN_AT = (1, 10, 100, 1000, 10_000, 100_000)  # numbers of files at which a warning is printed
_others = 0  # files in this process that only another than the first library could read


def open_video(data: Stored, reader: str) -> VideoReader:
    """Open an encoded video, given as bytes or as a file; call it in the reading process.

    The container is checked by its first bytes, so FFmpeg never gets other files, such as a
    playlist that would open further URLs.

    Args:
        reader: a key of :data:`READERS`.

    Raises:
        CorruptSample: not a video, truncated, or (``VideoDecodeError``) unreadable.
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
    """:func:`read_timed` for a choice that does not depend on the rate."""
    return read_timed(data, lambda total, rate: choose(total), reader)


def read_timed(
    data: Stored, choose: Callable[[int, float], list[int]], reader: str = "auto"
) -> np.ndarray:
    """Open an encoded video, read frames (n, H, W, 3) uint8 RGB, and close it.

    Args:
        choose: number of frames, frames a second (25 if unknown) -> frame numbers to read.
        reader: a key of :data:`READERS`, or ``auto``: the first that can read the file.

    Raises:
        CorruptSample, UserError: see :func:`open_video`.
    """
    if reader != "auto":
        with open_video(data, reader) as video:
            return video.read(choose(video.num_frames, video.rate or ASSUMED_RATE))
    first: VideoDecodeError | None = None
    choose = cache(choose)  # it may be random, so call it only once per length
    for name in filter(_class_of, READERS):
        try:
            with open_video(data, name) as video:
                frames = video.read(choose(video.num_frames, video.rate or ASSUMED_RATE))
        except VideoDecodeError as fault:
            first = first or fault
            continue
        if first is not None:
            _warn(first, name)
        return frames
    if first is None:
        raise UserError("no library that reads video is installed: pip install 'mimsuite[video]'")
    raise first


def _class_of(reader: str) -> Callable[[Stored], VideoReader] | None:
    """The reader class; ``None`` if its library cannot be imported."""
    if reader not in _loaded:
        module, _, name = READERS[reader].partition(":")
        try:
            import_module(_LIBRARY[reader])
            _loaded[reader] = getattr(import_module(module), name)
        except (ImportError, OSError, RuntimeError):  # also missing system libraries
            _loaded[reader] = None
    return _loaded[reader]


_LIBRARY = {"decord": "decord", "torchcodec": "torchcodec", "pyav": "av"}
_loaded: dict[str, Callable[[Stored], VideoReader] | None] = {}


def _warn(fault: VideoDecodeError, name: str) -> None:
    global _others
    _others += 1
    if _others in _WARN_AT:
        count = "a file" if _others == 1 else f"{_others} files"
        print(f"warning: {count} read by {name} instead ({fault})", file=sys.stderr)
