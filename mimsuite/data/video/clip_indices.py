"""Frame sampling: the frame indices of a clip, as pure functions of (video length, generator).

Letters: n frames in the video, L frames per clip, r stride. Indices start at 0; a video that is too
short repeats its last legal frame. The rules are those of OpenGVLab/VideoMAEv2; those of several
clips and of strides by time are facebookresearch/vjepa2's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Draw = np.random.Generator | None  # None: no randomness, the middle of the video


def clip(total: int, length: int, stride: int, rng: Draw, jitter: bool = False) -> list[int]:
    """Pretraining: L frames with stride r from a random start (without ``rng``: centred).

    Args:
        jitter: shift each frame by up to r - 1.
    """
    room = max(1, total - length * stride + 1)
    start = room // 2 if rng is None else int(rng.integers(room))
    offsets = rng.integers(stride, size=length) if jitter and rng is not None else [0] * length
    return clip_from(total, stride, start, [int(offset) for offset in offsets])


def clip_from(total: int, stride: int, start: int, offsets: Sequence[int]) -> list[int]:
    """The frames of :func:`clip` from ``start``, one for each offset."""
    ids, at = [], start + 1  # the published rule counts frames from 1
    for offset in offsets:
        ids.append((at + offset if at + offset <= total else at) - 1)
        if at + stride < total:
            at += stride
    return ids


def dense(total: int, length: int, stride: int, rng: Draw) -> list[int]:
    """Fine-tuning: L frames spread evenly over L * r frames; with ``rng`` from a random start.

    As in the published code, gaps are sometimes slightly larger than r.
    """
    span = length * stride
    if total <= span:
        return _all_of(total, length, stride)
    end = (span + total) // 2 if rng is None else int(rng.integers(span, total))
    return dense_until(end, length, stride)


def dense_until(end: int, length: int, stride: int) -> list[int]:
    """The frames of :func:`dense` whose stretch of L * r frames ends before ``end``."""
    ids = np.linspace(end - length * stride, end, num=length)
    return [int(i) for i in np.clip(ids, end - length * stride, end - 1)]


def _all_of(end: int, length: int, stride: int) -> list[int]:
    """Evenly spread frames before ``end``, the last of them repeated."""
    count = end // stride
    ids = np.concatenate([np.linspace(0, end, num=count), np.full(max(0, length - count), end)])
    return [int(i) for i in np.clip(ids, 0, end - 1)]


def stride_at(rate: float, fps: float) -> int:
    """Distance of frames for ``fps`` frames a second of a video with ``rate`` of them."""
    return max(1, int(math.ceil(rate) / fps))


def spread(
    total: int, length: int, stride: int, clips: int, rng: Draw, overlap: bool = True
) -> list[list[int]]:
    """One dense clip from each of ``clips`` equal parts of a video; without ``rng`` its first.

    Args:
        overlap: clips that are longer than a part cover more than it; else they repeat its last
            frame.
    """
    span, part = length * stride, total // clips
    if part > span:
        ends = [span if rng is None else int(rng.integers(span, part)) for _ in range(clips)]
        ids, shift = [dense_until(end, length, stride) for end in ends], part
    elif overlap:
        ids = [_all_of(max(min(span, total) - 1, 1), length, stride)] * clips
        shift = (total - span) // (clips - 1) if total > span and clips > 1 else 0
    else:
        ids, shift = [_all_of(max(part, 1), length, stride)] * clips, part
    return [[frame + number * shift for frame in clip] for number, clip in enumerate(ids)]


def segments(total: int, length: int, rng: Draw) -> list[int]:
    """One frame from each of L equal parts (TSN, arXiv:1608.00859); without ``rng`` the middle one.

    A video with fewer than L frames uses all of them and repeats the first at the beginning.
    """
    part = total // length
    if part == 0:
        return [0] * (length - total) + list(range(total))
    offsets = [part // 2] * length if rng is None else rng.integers(part, size=length)
    return [int(number * part + offset) for number, offset in enumerate(offsets)]


def still(total: int, length: int, rng: Draw) -> list[int]:
    """A single frame repeated L times: a random one, without ``rng`` the middle one."""
    return [total // 2 if rng is None else int(rng.integers(total))] * length


def test_frames(total: int, length: int, stride: int) -> list[int]:
    """The frames that dense test clips are cut from: every r-th, padded to L with the last."""
    ids = list(range(0, total, stride))
    return ids + [ids[-1]] * (length - len(ids))


def test_clips(total: int, length: int, stride: int, clips: int) -> list[list[int]]:
    """``clips`` dense clips spread over the whole video; a single one is centred."""
    frames = test_frames(total, length, stride)
    room = max(len(frames) - length, 0)
    starts = [room // 2] if clips == 1 else [int(c * (room / (clips - 1))) for c in range(clips)]
    return [frames[start : start + length] for start in starts]


def test_segments(total: int, length: int, clips: int) -> list[list[int]]:
    """``clips`` sparse clips: one frame from each of L parts, clip c shifted by c / clips parts."""
    tick = total / length
    return [
        [int(number * tick / clips + tick * part) for part in range(length)]
        for number in range(clips)
    ]


def test_stills(total: int, length: int, clips: int) -> list[list[int]]:
    """``clips`` stills: the middle frame of each of ``clips`` equal parts of the video."""
    return [[(2 * part + 1) * total // (2 * clips)] * length for part in range(clips)]
