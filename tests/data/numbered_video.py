"""Makes videos that show their frame numbers, in a process of its own: where decord is loaded, its
libraries stand in for those of PyAV, and VP9 cannot be encoded."""

from __future__ import annotations

import io
import subprocess
import sys
from fractions import Fraction

import numpy as np

FRAMES, SIZE, BITS = 40, 64, 6


def numbered(
    codec: str = "libx264",
    form: str = "mp4",
    gop: int = 12,
    size: tuple[int, int] = (SIZE, SIZE),
    frames: int = FRAMES,
    **options: str,
) -> bytes:
    """A video of (height, width); frame numbers are drawn as six black or white bars."""
    words = [codec, form, gop, *size, frames, *(f"{k}={v}" for k, v in options.items())]
    command = [sys.executable, __file__, *map(str, words)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


def numbers(frames: np.ndarray) -> list[int]:
    """The numbers that frames (n, H, W, 3) show."""
    step = frames.shape[2] // BITS
    bars = [
        frames[:, 8:-8, bit * step + 2 : bit * step + step - 2].mean((1, 2, 3)) > 128
        for bit in range(BITS)
    ]
    shown: np.ndarray = sum(bar.astype(int) << bit for bit, bar in enumerate(bars))  # type: ignore[assignment]
    return shown.tolist()


def _make(
    codec: str, form: str, gop: str, height: int, width: int, frames: int, options: dict[str, str]
) -> bytes:
    import av

    out = io.BytesIO()
    with av.open(out, "w", format=form) as file:
        stream = file.add_stream(codec, rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"g": gop, **options}
        step = width // BITS
        for number in range(frames):
            pixels = np.zeros((height, width, 3), np.uint8)
            for bit in range(BITS):
                pixels[:, bit * step : bit * step + step] = 255 * (number >> bit & 1)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode())
    return out.getvalue()


if __name__ == "__main__":
    codec, form, gop, height, width, frames, *pairs = sys.argv[1:]
    made = dict(pair.split("=") for pair in pairs)
    sys.stdout.buffer.write(_make(codec, form, gop, int(height), int(width), int(frames), made))
