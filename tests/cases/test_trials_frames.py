"""Videos as pictures, a file a frame: inspected, verified and packed, in the order of time."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mimsuite.cli.main import main
from mimsuite.data import open_source
from mimsuite.data.packing.inspection import contact_sheet, inspect
from mimsuite.data.packing.pack import PackOptions, pack
from mimsuite.data.packing.verify import verify
from mimsuite.data.sources.stored import modalities_in, open_stored

CASES = Path(__file__).parent
GREYS = list(range(20, 241, 20))


def clip(folder: Path, name: str = "img_{}.png", side: int = 16) -> None:
    folder.mkdir(parents=True)
    for number, grey in enumerate(GREYS, 1):
        path = folder / name.format(number)
        Image.fromarray(np.full((side, side, 3), grey, np.uint8)).save(path, quality=100)


def greys(spec: Path, position: int, split: str = "train") -> list[int]:
    source = open_source(str(spec), split, modality="video")
    sample = source.read(*source.locate(position))
    frames = source.decode(sample).read(lambda total: list(range(total)))
    return frames[:, 0, 0, 0].astype(int).tolist()


def test_folders_of_frames_are_inspected(tmp_path: Path) -> None:
    (split,) = inspect(str(CASES / "frames-unpadded"), modality="video")["splits"].values()
    assert (split["samples"], split["labelled"], split["corrupt"]) == (2, 2, [])
    assert split["frames"] == {"min": 12, "median": 12, "max": 12}
    assert split["codec"] == {"png, a file a frame": 2}
    assert split["bytes"] > 0
    source = open_stored(str(CASES / "frames-unpadded"), "train", "video")
    assert Image.open(contact_sheet(source, tmp_path / "s.png", "video")).width > 200


@pytest.mark.parametrize("name", ["{}.png", "frame{}.jpg", "{:05d}.webp", "take2_{}_l7.png"])
def test_packed_frames_are_read_back_in_their_order(name: str, tmp_path: Path) -> None:
    for label in ("a", "b"):
        clip(tmp_path / "set" / label / "v.1", name)
    packed = pack(str(tmp_path / "set"), tmp_path / "out", PackOptions(modality="video", seed=None))
    assert (packed.modality, packed.damaged) == ("video", [])
    assert list(modalities_in(str(tmp_path / "out"))) == ["video"]
    for position in range(2):
        assert np.allclose(greys(tmp_path / "out", position), GREYS, atol=6)
    source = open_source(str(tmp_path / "out"), modality="video")
    assert source.classes == ["a", "b"]
    assert source.labels().tolist() == [0, 1]
    assert [report.problems for report in verify(str(tmp_path / "out"))] == [[]]
    with tarfile.open(tmp_path / "out" / "train-000000.tar") as shard:
        assert sum(name.endswith(".cls") for name in shard.getnames()) == 2


def test_frames_become_a_video_file_where_key_frames_are_asked(tmp_path: Path) -> None:
    clip(tmp_path / "set" / "v", side=64)
    options = PackOptions(modality="video", gop=4, resize=32)
    pack(str(tmp_path / "set"), tmp_path / "out", options)
    assert np.allclose(greys(tmp_path / "out", 0), GREYS, atol=8)
    (split,) = inspect(str(tmp_path / "out"))["splits"].values()
    assert split["height"]["max"] == 32


def test_a_list_of_folders_is_video(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        clip(tmp_path / name)
    (tmp_path / "list.txt").write_text("a 12 0\nb 12 1\nc 12 1\n")
    spec = str(tmp_path / "list.txt")
    report = inspect(spec)
    assert report["modality"] == "video"
    assert report["splits"]["train"]["classes"] == {"0": 1, "1": 2}
    assert [one.problems for one in verify(spec)] == [[]]
    pack(spec, tmp_path / "out")
    assert greys(tmp_path / "out", 0) == GREYS


def test_damage_is_named(tmp_path: Path) -> None:
    clip(tmp_path / "set" / "a")
    clip(tmp_path / "set" / "b")
    Image.new("RGB", (9, 9)).save(tmp_path / "set" / "a" / "img_5.png")
    clip(tmp_path / "set" / "c")
    (tmp_path / "set" / "c" / "img_7.png").write_bytes(b"no picture")
    (report,) = verify(str(tmp_path / "set"), modality="video")
    assert [line.partition(": ")[0] for line in report.problems] == ["a", "c"]
    assert "several sizes" in report.problems[0]


def test_a_frame_that_is_damaged_in_a_shard_is_found(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as shard:
        for number in range(1, 5):
            stream = io.BytesIO()
            Image.new("RGB", (8, 8)).save(stream, "PNG")
            data = b"cut" if number == 3 else stream.getvalue()
            member = tarfile.TarInfo(f"v.{number}.png")
            member.size = len(data)
            shard.addfile(member, io.BytesIO(data))
    (report,) = verify(str(tmp_path / "a.tar"), modality="video")
    assert report.problems[0].startswith("v: decode")


def test_what_lies_beside_frames_is_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip(tmp_path / "set" / "a")
    (tmp_path / "set" / "a" / "flow.npz").write_bytes(b"x")
    Image.new("RGB", (9, 9)).save(tmp_path / "set" / "poster.png")
    assert main(["data", "inspect", str(tmp_path / "set"), "--modality", "video", "--json"]) == 0
    (split,) = json.loads(capsys.readouterr().out)["splits"].values()
    assert [item["what"] for item in split["unused"]] == [".npz files", ".png files"]
