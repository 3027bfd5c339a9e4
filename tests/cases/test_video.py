"""Frames by their numbers, videos of every container, and cameras of posed pictures."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mimsuite.data import open_source
from mimsuite.data.natural_order import natural_key

CASES = Path(__file__).parent
NAMES = ["{}.png", "img_{}.png", "frame{}.png", "take2_{}_left7.png", "{:02d}.png"]


def greys(spec: Path, position: int) -> list[int]:
    """One grey level a frame, in the order in which training sees them."""
    source = open_source(str(spec), modality="video")
    sample = source.read(*source.locate(position))
    frames = source.decode(sample).read(lambda total: list(range(total)))
    return frames[:, 0, 0, 0].tolist()


def test_frames_without_leading_zeros_are_in_the_order_of_time() -> None:
    source = open_source(str(CASES / "frames-unpadded"), modality="video")
    assert source.classes == ["down", "up"]
    assert len(source) == 2
    assert greys(CASES / "frames-unpadded", 0) == list(range(240, 0, -20))
    assert greys(CASES / "frames-unpadded", 1) == list(range(20, 241, 20))


@pytest.mark.parametrize("name", NAMES)
def test_other_ways_of_numbering(name: str, tmp_path: Path) -> None:
    folder, shard = tmp_path / "frames" / "a", tmp_path / "a.tar"
    folder.mkdir(parents=True)
    with tarfile.open(shard, "w") as file:
        for number in range(1, 13):
            stream = io.BytesIO()
            Image.fromarray(np.full((4, 4, 3), 20 * number, np.uint8)).save(stream, "PNG")
            (folder / name.format(number)).write_bytes(stream.getvalue())
            member = tarfile.TarInfo(f"v.{name.format(number)}")
            member.size = stream.tell()
            file.addfile(member, io.BytesIO(stream.getvalue()))
    assert greys(tmp_path / "frames", 0) == list(range(20, 241, 20))
    assert greys(shard, 0) == list(range(20, 241, 20))


def test_numbers_in_names_count_as_numbers() -> None:
    wanted = ["1_2.png", "1_10.png", "2_1.png", "09.png", "9a.png", "10.png", "99999999999.png"]
    assert sorted(reversed(wanted), key=natural_key) == wanted
    assert sorted(["a²1", "1", "a"], key=natural_key) == ["1", "a", "a²1"]  # no digits of others
