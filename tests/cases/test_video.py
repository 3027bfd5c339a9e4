"""Frames by their numbers, videos of every container, and long ones."""

from __future__ import annotations

import io
import pickle
import resource
import struct
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mimsuite import config
from mimsuite.data import open_source, open_training_set
from mimsuite.data.local_file import LocalFile
from mimsuite.data.packing.inspection import inspect
from mimsuite.data.packing.pack import PackOptions, pack
from mimsuite.data.video import containers
from mimsuite.data.video import files as video
from mimsuite.data.video.containers import container_of
from mimsuite.data.video.natural_order import natural_key
from mimsuite.data.video.readers import read_video
from mimsuite.errors import CorruptSample, DataError
from tests.data.numbered_video import FRAMES, numbered, numbers

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


CONTAINERS = {
    "ts": ("libx264", "mpegts", {"bf": "2"}),
    "m2ts": ("mpeg2video", "mpegts", {}),
    "wmv": ("wmv2", "asf", {}),
    "flv": ("flv", "flv", {}),
    "mpg": ("mpeg1video", "mpeg", {}),
    "mpeg": ("mpeg2video", "mpeg", {"bf": "2"}),
    "vob": ("mpeg2video", "vob", {}),
    "3gp": ("libx264", "3gp", {}),
    "ogv": ("libvpx", "ogv", {"deadline": "realtime"}),
}


@pytest.fixture(scope="module", params=CONTAINERS)
def film(request: Any, tmp_path_factory: Any) -> Path:
    """A folder with a video of one container, made by PyAV."""
    codec, form, options = CONTAINERS[request.param]
    try:
        data = numbered(codec, form, **options)
    except subprocess.CalledProcessError:
        pytest.skip(f"PyAV was built without {codec}")
    if request.param == "m2ts":  # packets with a time in front of each
        data = b"".join(b"\0\0\0\0" + data[at : at + 188] for at in range(0, len(data), 188))
    folder: Path = tmp_path_factory.mktemp("films")
    (folder / f"film.{request.param}").write_bytes(data)
    return folder


def test_frames_of_every_container_are_in_their_place(film: Path) -> None:
    source = open_source(str(film), modality="video")
    video = source.decode(source.read(*source.locate(0)))
    for wanted in ([0, 1, 2], [39, 3, 17, 3], list(range(5, 37, 4)), [38]):
        frames = video.read(lambda total, w=wanted: [total - FRAMES + i for i in w])
        assert numbers(frames) == wanted


def test_every_container_is_inspected_and_packed(film: Path, tmp_path: Path) -> None:
    found = inspect(str(film))
    assert found["modality"] == "video"
    assert found["splits"]["train"]["frames"]["min"] == FRAMES
    assert found["splits"]["train"]["corrupt"] == []
    packed = pack(str(film), tmp_path / "shards")
    assert packed.damaged == []
    source = open_source(str(tmp_path / "shards"), modality="video")
    frames = source.decode(source.read(0, 0)).read(lambda total: [7, 33])
    assert numbers(frames) == [7, 33]


def test_what_is_cut_off_is_told_where_the_container_states_its_size(film: Path) -> None:
    file = next(film.iterdir())
    data = file.read_bytes()
    if file.suffix not in (".ts", ".m2ts", ".mpg", ".mpeg", ".vob"):
        with pytest.raises(CorruptSample, match="bytes are there"):
            container_of(data[: len(data) * 2 // 3])
    with pytest.raises(CorruptSample, match="no video file"):
        container_of(b"#EXTM3U\nhttp://127.0.0.1/a.ts\n" * 99)


def test_a_recording_may_begin_anywhere(tmp_path: Path) -> None:
    data = numbered("mpeg2video", "mpegts")
    middle = len(data) // 3 // 188 * 188
    frames = read_video(data[middle:], lambda total: list(range(total)))
    shown = numbers(frames)
    assert shown == list(range(shown[0], FRAMES))
    assert 0 < shown[0] < FRAMES // 2 + 4


def test_turned_videos_have_their_size_as_shown(tmp_path: Path) -> None:
    data = numbered(size=(48, 64))
    at = data.index(b"tkhd") + 4 + 40  # its matrix, here by a quarter
    quarter = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    turned = data[:at] + quarter + data[at + 36 :]
    assert (video.facts(data)["height"], video.facts(data)["width"]) == (48, 64)
    assert (video.facts(turned)["height"], video.facts(turned)["width"]) == (64, 48)
    assert read_video(turned, lambda total: [0]).shape == (1, 64, 48, 3)


@pytest.mark.parametrize(
    ("matrix", "mirror"),
    [
        ((-1, 0, 0, 1), lambda frame: frame[:, ::-1]),
        ((1, 0, 0, -1), lambda frame: frame[::-1]),
        ((0, 1, 1, 0), lambda frame: frame.swapaxes(0, 1)),
        ((0, -1, -1, 0), lambda frame: frame.swapaxes(0, 1)[::-1, ::-1]),
    ],
)
def test_mirrored_videos_are_undone(matrix: tuple[int, ...], mirror: Any) -> None:
    data = numbered(size=(48, 64))
    at = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (entry << 16 for entry in matrix)
    turned = data[:at] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + data[at + 36 :]
    plain = read_video(data, lambda total: [3], "pyav")[0]
    for reader in ("pyav", "auto"):
        found = read_video(turned, lambda total: [3], reader)[0]
        assert np.array_equal(found, mirror(plain))
    with pytest.raises(CorruptSample, match="does not mirror frames"):
        read_video(turned, lambda total: [3], "decord")


class Counting(io.BytesIO):
    """A file that counts what is read of it."""

    taken = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.taken += len(data)
        return data


@pytest.fixture
def long_film(tmp_path: Path) -> Path:
    """300 MiB on paper: a box of nothing, as editors leave it, behind a short film."""
    data = numbered()
    path = tmp_path / "films" / "long.mp4"
    path.parent.mkdir()
    with path.open("wb") as file:
        file.write(data + struct.pack(">I", 300 << 20) + b"free")
        file.truncate(len(data) + (300 << 20))
    return path


@pytest.mark.parametrize("reader", ["auto", "pyav"])
def test_long_videos_are_read_in_place(long_film: Path, reader: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(LocalFile, "__bytes__", None)  # nobody loads it whole
    source = open_source(str(long_film.parent), modality="video")
    sample = source.decode(source.read(0, 0))
    assert len(pickle.dumps(sample)) < 1000
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert numbers(sample.read(lambda total: [3, 31], reader)) == [3, 31]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used < 100 << 10  # KiB


def test_a_container_is_told_from_a_few_bytes(long_film: Path, monkeypatch: Any) -> None:
    whole = Counting(long_film.read_bytes()[: 8 << 20])
    monkeypatch.setattr(containers, "opened", lambda data: whole)
    with pytest.raises(CorruptSample, match="bytes are there"):
        container_of(b"")
    assert whole.taken < 70_000


def test_long_videos_are_inspected_and_packed_smaller(long_film: Path, tmp_path: Path) -> None:
    assert inspect(str(long_film.parent))["splits"]["train"]["corrupt"] == []
    with pytest.raises(DataError, match="leave it a file, or shrink it by --short-side or --gop"):
        pack(str(long_film.parent), tmp_path / "whole")
    assert pack(str(long_film.parent), tmp_path / "small", PackOptions(gop=12)).damaged == []


def test_other_files_have_a_limit_that_is_a_key(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.bmp")
    assert len(open_source(str(tmp_path)).read(0, 0).payload) > 10_000
    with pytest.raises(CorruptSample, match="more than"):
        open_source(str(tmp_path), max_bytes=10_000).read(0, 0)
    recipe = config.load("image/mae-tiny-fashion")
    keys = {"data.source": str(tmp_path), "data.max_bytes": 10_000}
    source = open_training_set(config.with_overrides(recipe, keys, "t").recipe)
    with pytest.raises(CorruptSample, match="max_bytes=10000"):
        source.read(0, 0)
