"""Video files through PyAV: checked frame by frame, and re-encoded for cheap reading.

The container is recognised by our own code, and FFmpeg's detection is disabled: some formats that
it would accept (playlists, image patterns) open further files or URLs.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from mimsuite.data.local_file import Stored, opened
from mimsuite.data.video.containers import Container, container_of
from mimsuite.errors import CorruptSample, UserError

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_PIXELS = 40_000_000  # limit of a frame's pixels; 8K has 35 million
MOST_FRAMES = 1_000_000
_QUALITY = "20"  # x264's constant rate factor, 23 by default; lower is better
_PRESET = "medium"
SHOWN = (1 / 6, 1 / 2, 5 / 6)  # times of the shown frames, as shares of the duration
_TILE = (85, 64)  # width and height in pixels of a frame on a contact sheet


def facts(data: Stored) -> dict[str, int | float | str]:
    """Number of frames, displayed size, frames per second and codec; decodes every frame."""
    container = container_of(data)
    with _Clip(data, container) as clip:
        frames, quarters = 0, 0
        for frame in clip.frames():
            quarters = quarters if frames else _quarters(frame)
            frames += 1
        if not frames:
            raise CorruptSample("decode", "no frame can be decoded")
        sides = (clip.height, clip.width)
        height, width = sides[::-1] if quarters % 2 else sides
        return {
            "frames": frames,
            "height": height,
            "width": width,
            "fps": round(float(clip.rate), 2),
            "codec": f"{clip.codec} in {container.extension}",
        }


def store(
    data: Stored, *, short_side: int | None = None, gop: int | None = None
) -> tuple[str, bytes]:
    """Decode every frame, then return the file unchanged or, with options, H.264 in mp4.

    Args:
        short_side: short side in pixels to which larger frames are downsized.
        gop: frames between key frames; a small number makes random access cheap. None: 12 when
            re-encoding.
    """
    if short_side is None and gop is None:
        facts(data)
        return container_of(data).extension, bytes(data)
    with _Clip(data, container_of(data)) as clip:
        return "mp4", encode(_upright(clip, short_side), clip.rate, gop or 12)


def encode(frames: Iterator[Any], rate: Fraction, gop: int) -> bytes:
    """Encode ``av.VideoFrame`` of one even size as H.264 in mp4; deterministic.

    Raises:
        CorruptSample: there are no frames.
    """
    av = _av()
    out = io.BytesIO()
    # For equal bytes: no date, no encoder version, and one thread, because threads change slicing.
    with av.open(out, "w", format="mp4", container_options={"fflags": "+bitexact"}) as file:
        stream = None
        for number, frame in enumerate(frames):
            if stream is None:
                stream = file.add_stream("libx264", rate=rate)
                stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, "yuv420p"
                stream.codec_context.thread_count = 1
                stream.codec_context.flags |= int(av.codec.context.Flags.bitexact)
                stream.options = {
                    "crf": _QUALITY,
                    "preset": _PRESET,
                    "g": str(gop),
                    # Without it, the bytes of one clip in twelve depended on uninitialised
                    # memory.
                    "x264-params": "cpu-independent=1",
                }
            frame.pts, frame.time_base = number, 1 / rate
            frame.pict_type = 0  # drop the type from the source file: the encoder chooses
            file.mux(stream.encode(frame))
        if stream is None:
            raise CorruptSample("decode", "no frame can be decoded")
        file.mux(stream.encode())
    return out.getvalue()


def picture(data: Stored) -> np.ndarray:
    """(64, 255, 3) uint8: an early, the middle and a late frame, side by side."""
    with _Clip(data, container_of(data)) as clip:
        total = sum(1 for _ in clip.frames())
    wanted = [int(total * share) for share in SHOWN]
    tiles = []
    with _Clip(data, container_of(data)) as clip:
        shown = (frame for number, frame in enumerate(clip.frames()) if number in wanted)
        tiles = [turned(frame).to_image() for frame in shown]
    if not tiles:
        raise CorruptSample("decode", "no frame can be decoded")
    while len(tiles) < len(SHOWN):  # clips with one or two frames
        tiles.append(tiles[-1])
    return np.asarray(filmstrip(tiles))


def filmstrip(tiles: list[Image]) -> Image:
    """Frames side by side, 64 pixels high."""
    from PIL import Image

    sheet = Image.new("RGB", (_TILE[0] * len(tiles), _TILE[1]), "white")
    for number, tile in enumerate(tiles):
        tile.thumbnail((_TILE[0] - 2, _TILE[1]))
        sheet.paste(tile, (number * _TILE[0], (_TILE[1] - tile.height) // 2))
    return sheet


def from_pictures(pictures: Iterator[np.ndarray], short_side: int | None, gop: int | None) -> bytes:
    """Encode frame images as H.264 in mp4 at 25 frames per second.

    Args:
        pictures: (H, W, 3) uint8 RGB, all of one size.
        short_side, gop: as in :func:`store`.
    """
    av = _av()

    def shrunk() -> Iterator[Any]:
        for picture in pictures:
            height, width, _ = picture.shape
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            size = _size(width, height, short_side)
            yield frame.reformat(*size, format="yuv420p", interpolation="AREA")

    return encode(shrunk(), Fraction(25), gop or 12)


class _Clip:
    """An open video file; decodes on one thread and refuses frames that are too large."""

    def __init__(self, data: Stored, container: Container) -> None:
        self._av = _av()
        try:
            self._file = self._av.open(opened(data), format=container.demuxer)
            self._stream = self._file.streams.video[0]
        except IndexError:
            raise CorruptSample("decode", "no video in it, maybe sound alone") from None
        except self._av.FFmpegError as fault:
            raise CorruptSample("decode", f"no video in it ({_reason(fault)})") from None
        context = self._stream.codec_context
        if context is None or not context.name:
            raise CorruptSample("decode", "its codec is not known")
        context.thread_count = 1
        context.thread_type = "NONE"
        self.codec, self.width, self.height = context.name, context.width, context.height
        self.rate: Fraction = self._stream.average_rate or Fraction(25)
        self._check(self.width, self.height)

    def __enter__(self) -> _Clip:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def frames(self) -> Iterator[Any]:
        try:
            for number, frame in enumerate(self._file.decode(self._stream)):
                self._check(frame.width, frame.height)
                if number >= MOST_FRAMES:
                    raise CorruptSample("too-large", f"more than {MOST_FRAMES} frames")
                if frame.is_corrupt:
                    raise CorruptSample("decode", f"frame {number} is damaged")
                yield frame
        except self._av.FFmpegError as fault:
            raise CorruptSample("decode", _reason(fault)) from None

    def _check(self, width: int, height: int) -> None:
        if width * height > MOST_PIXELS:
            raise CorruptSample("too-large", f"frames of {width} x {height} pixels")


def _upright(clip: _Clip, short_side: int | None) -> Iterator[Any]:
    """Frames in yuv420p, all of one even size, in display orientation."""
    size = None
    for frame in clip.frames():
        upright = turned(frame)
        if size is None:
            size = _size(upright.width, upright.height, short_side)
        yield upright.reformat(*size, format="yuv420p", interpolation="AREA")


def turned(frame: Any) -> Any:
    """A frame in display orientation: rotated by quarter turns and mirrored, as the file asks."""
    quarters, mirrored = _quarters(frame), _mirrored(frame)
    if not quarters and not mirrored:
        return frame
    pixels = frame.to_ndarray(format="rgb24")
    pixels = np.rot90(pixels[::-1] if mirrored else pixels, quarters)
    return type(frame).from_ndarray(np.ascontiguousarray(pixels), format="rgb24")


def _quarters(frame: Any) -> int:
    return round(getattr(frame, "rotation", 0) / 90) % 4


def _mirrored(frame: Any) -> bool:
    """Whether the frame is flipped vertically before the quarter turns."""
    for entry in frame.side_data:
        if entry.type.name == "DISPLAYMATRIX":
            a, b, _, c, d, *_ = struct.unpack("9i", bytes(entry))
            return bool(a * d < b * c)
    return False


def _size(width: int, height: int, short_side: int | None) -> tuple[int, int]:
    scale = min(1.0, (short_side or min(width, height)) / min(width, height))
    return tuple(max(2, round(side * scale / 2) * 2) for side in (width, height))  # type: ignore[return-value]


def _av() -> Any:
    try:
        import av
    except ImportError as fault:
        raise UserError(
            f"video needs PyAV ({fault}): install it with `pip install 'mimsuite[video]'`"
        ) from None
    av.logging.set_level(None)
    return av


def _reason(fault: Exception) -> str:
    return " ".join(str(getattr(fault, "strerror", None) or fault).split())[:160]
