"""Videos in tar shards as pictures, one a frame: ``KEY.000001.jpg``, ``KEY.000002.jpg``, ..."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mimsuite.data.damage import CorruptSample
from mimsuite.data.image.kinds import IMAGE_EXTENSIONS
from mimsuite.data.shards.source import TarSource
from mimsuite.data.source import Sample
from mimsuite.data.sources.frame_folders import Frames
from mimsuite.data.video.natural_order import natural_key

_NUMBERED = re.compile(rf".*[0-9]\.(?:{'|'.join(IMAGE_EXTENSIONS)})")


@dataclass(frozen=True)
class TarFrames(Frames):
    """Frames of a sample.

    Attributes:
        load_member: the bytes of a member of the shard.
        members: one a frame, in the order of the frames.
        max_pixels: of a frame.
    """

    load_member: Callable[[int], bytes]
    members: tuple[int, ...]
    max_pixels: int

    def __len__(self) -> int:
        return len(self.members)

    def load(self, number: int) -> bytes:
        return self.load_member(self.members[number])


class FrameTarSource(TarSource):
    """Tar shards whose samples are numbered pictures; other pictures of a sample are not read."""

    in_frames = True

    def payload(self, shard: int, offset: int) -> bytes:
        """Where the sample is; its frames are read when it is known which are wanted."""
        if not self._frames(shard, offset):
            raise CorruptSample("missing", "no numbered picture in it")
        return f"{shard} {offset}".encode()

    def sample_bytes(self, shard: int, offset: int) -> int:
        members = self._open(shard).index.members
        return sum(int(members[member]["size"]) for member in self._frames(shard, offset))

    def decode(self, sample: Sample) -> TarFrames:
        assert isinstance(sample.payload, bytes)
        shard, offset = map(int, sample.payload.split())

        def load(member: int) -> bytes:
            return self._read_member(self._open(shard), member)

        return TarFrames(load, self._frames(shard, offset), self.decoder.max_pixels)

    def _frames(self, shard: int, offset: int) -> tuple[int, ...]:
        """Members that are frames, in the order of the numbers in their names."""
        opened = self._open(shard)
        row = opened.samples[offset]
        members = range(int(opened.index.first[row]), int(opened.index.first[row + 1]))
        names = [opened.index.extensions[opened.index.members[m]["extension"]] for m in members]
        frames = [(natural_key(n), m) for n, m in zip(names, members, strict=True) if is_frame(n)]
        return tuple(member for _, member in sorted(frames))


def is_frame(extension: str) -> bool:
    """Whether a member is a numbered picture, as ``000017.jpg`` or ``img_17.jpg``."""
    return _NUMBERED.fullmatch(extension) is not None


def are_frames(extensions: Iterable[str], videos: tuple[str, ...]) -> bool:
    """Whether members with these extensions are frames, and none is a file of ``videos``."""
    found = set(extensions)
    if any(name.rpartition(".")[2] in videos for name in found):
        return False
    return any(map(is_frame, found))
