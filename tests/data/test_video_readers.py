"""Readers of video: the right frames, from every kind of file, and a clear end for damaged ones."""

from __future__ import annotations

import gc
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mimsuite.data.video.readers import READERS, choice, read_video
from mimsuite.errors import CorruptSample
from tests import needs
from tests.data.numbered_video import FRAMES, SIZE, numbered, numbers


@pytest.fixture(params=[*READERS, "auto"])
def reader(request: Any) -> str:
    name = request.param
    if name != "auto" and choice._class_of(name) is None:
        needs.module("av" if name == "pyav" else name)
        needs.lacking("FFmpeg's libraries, for torchcodec", "apt-get install ffmpeg")
    return name


@pytest.fixture(scope="module")
def h264() -> bytes:
    return numbered("libx264", "mp4", bf="2")


KINDS = {
    "h264 with B-frames": ("libx264", "mp4", 250, {"bf": "3"}),
    "h264 in matroska": ("libx264", "matroska", 12, {}),
    "vp9": ("libvpx-vp9", "webm", 12, {"deadline": "realtime", "cpu-used": "5"}),
    "mpeg4 in avi": ("mpeg4", "avi", 12, {}),
}


@pytest.fixture(scope="module", params=KINDS)
def video_file(request: Any) -> bytes:
    codec, form, gop, options = KINDS[request.param]
    return numbered(codec, form, gop, **options)


def test_frames_are_found_by_number(reader: str, video_file: bytes) -> None:
    for wanted in ([0, 1, 2], [39, 3, 17, 3], list(range(5, 37, 4)), [38]):
        frames = read_video(
            video_file, lambda total, w=wanted: [total - FRAMES + i for i in w], reader
        )
        assert frames.dtype == np.uint8
        assert frames.shape == (len(wanted), SIZE, SIZE, 3)
        assert numbers(frames) == wanted


def test_streams_without_an_index_are_read_right_or_refused(reader: str) -> None:
    stream = numbered("libx264", "mpegts", bf="2")
    wanted = [3, 17, 39]

    def read() -> list[int]:
        return numbers(read_video(stream, lambda n: [n - FRAMES + i for i in wanted], reader))

    if reader in ("decord", "torchcodec"):
        with pytest.raises(CorruptSample, match="by their numbers"):
            read()
    else:
        assert read() == wanted


def test_frames_that_are_not_there_are_refused(reader: str, h264: bytes) -> None:
    for wanted in ([FRAMES], [-1], []):
        with pytest.raises(CorruptSample, match="no frames"):
            read_video(h264, lambda total, w=wanted: w, reader)


def test_what_one_library_refuses_another_reads_and_says_so_once(
    capfd: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(choice, "_others", 0)
    narrow = numbered(size=(48, 48))  # which decord cannot
    drawn: list[list[int]] = []
    for number in (7, 33):
        frames = read_video(narrow, lambda total, n=number: drawn.append([n]) or [n])
        assert numbers(frames) == [number]
    assert drawn == [[7], [33]]  # once a file
    told = capfd.readouterr().err
    assert told.count("instead") == 1
    assert "decord" in told


def test_a_library_that_is_named_is_not_replaced() -> None:
    with pytest.raises(CorruptSample, match="decord"):
        read_video(numbered(size=(48, 48)), lambda total: [0], "decord")


def damaged(data: bytes) -> dict[str, bytes]:
    third = len(data) // 3
    rng = np.random.default_rng(0)
    noise = bytes(rng.integers(0, 256, 4000, dtype=np.uint8))
    flipped = bytearray(data)
    for at in range(600, len(data), 7):
        flipped[at] ^= 0x5A
    return {
        "empty": b"",
        "noise": noise,
        "text": b"#EXTM3U\nhttp://127.0.0.1:9/a.ts\n" * 8,
        "a header only": data[:32],
        "cut at 60 %": data[: int(len(data) * 0.6)],
        "cut at 95 %": data[: int(len(data) * 0.95)],
        "without moov": data.replace(b"moov", b"skip"),
        "an index of zeros": data[: data.index(b"moov") + 4].ljust(len(data), b"\0"),
        "zeros in the middle": data[:third] + bytes(third) + data[2 * third :],
        "flipped bytes": bytes(flipped),
    }


def test_damaged_files_raise_and_do_not_hang(reader: str, h264: bytes) -> None:
    concealed = {"flipped bytes", "zeros in the middle"}  # a decoder may show what is left
    for kind, data in damaged(h264).items():
        begun = time.process_time()
        outcome: Any = suppress if kind in concealed else pytest.raises
        with outcome(CorruptSample):
            read_video(data, lambda total: [0, 20, min(39, total - 1)], reader)
        assert time.process_time() - begun < 1.0, kind


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_opening_again_and_again_takes_no_memory(h264: bytes) -> None:
    def cycle(times: int) -> int:
        for number in range(times):
            read_video(h264, lambda total, n=number: [n % 24, n % 24 + 8])
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = cycle(100)
    assert cycle(600) - before < 20 << 20
