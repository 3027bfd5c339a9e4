"""Packing video, points and radiance grids: repeatable, resumable, checked, nothing lost."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mimsuite.data import modalities, open_source, source_splits
from mimsuite.data.packing.inspection import contact_sheet, inspect
from mimsuite.data.packing.pack import PackOptions, pack
from mimsuite.data.packing.verify import verify
from mimsuite.data.sources.stored import modalities_in, only_modality, open_stored
from mimsuite.data.synthetic.synth import makers, synthesise
from mimsuite.errors import DataError, UserError
from tests import needs
from tests.data.stored_files import CLOUDS, HOUSE, array_of, npy, npz


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def payloads(spec: Path, modality: str, split: str = "train") -> dict[str, tuple[bytes, Any]]:
    source = open_stored(str(spec), split, modality)
    samples = [source.read(*source.locate(position)) for position in range(len(source))]
    return {sample.key: (bytes(sample.payload), sample.label) for sample in samples}


# --- the registry ---


def test_listing_imports_no_decoder() -> None:
    code = """
    import sys
    from mimsuite.data import modalities
    from mimsuite.data.sources import stored
    from mimsuite.data.packing import pack
    from mimsuite.data.packing import verify
    from mimsuite.data.packing import inspection
    from mimsuite.data.synthetic import synth
    assert modalities.names() == ["image", "video", "points", "grids", "scans", "bands"]
    print(sorted({"av", "open3d", "decord", "nibabel", "pydicom", "tifffile"} & set(sys.modules)))
    """
    said = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == "[]"


def test_a_modality_is_registered_once() -> None:
    with pytest.raises(ValueError, match="registered twice"):
        modalities.register(modalities.Modality("video", stored=("mp4",)))
    with pytest.raises(UserError, match=r"Did you mean grids\?"):
        modalities.get("grid")
    assert modalities.training_decoder("image", "gray", 99).channel_count == 1
    assert modalities.training_decoder("points", "native", 99).extensions[0] == "npy"


@pytest.mark.parametrize(
    ("found", "meant"),
    [
        ({"jpg": 3}, {"image": 3}),
        ({"jpg": 3, "npy": 1}, {"image": 4}),
        ({"jpg": 3, "npz": 3}, {"image": 3}),
        ({"ply": 1, "npy": 5}, {"points": 6}),
        ({"jpg": 3, "mp4": 9}, {"video": 9, "image": 3}),
        ({"npy": 2}, {"image": 2, "points": 2}),
        ({"npz": 2}, {"points": 2, "grids": 2}),
        ({"depth.png": 1}, {"image": 1}),
    ],
)
def test_modalities_by_extension(found: dict[str, int], meant: dict[str, int]) -> None:
    assert list(modalities.by_extensions(found).items()) == list(meant.items())


def test_ambiguous_extensions_are_told_by_content(tmp_path: Path) -> None:
    contents = {
        "images/a.npy": npy(np.zeros((8, 8, 5), np.uint8)),
        "clouds/a.npy": npy(np.zeros((8, 3), np.float32)),
        "packed-clouds/a.npz": npz(points=np.zeros((8, 3))),
        "grids/a.npz": npz(rgbsigma=np.zeros((2, 2, 2, 4), np.float32)),
    }
    for name, data in contents.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(data)
    found = {name: only_modality(str(tmp_path / name), None) for name in os.listdir(tmp_path)}
    assert found == {
        "images": "image",
        "clouds": "points",
        "packed-clouds": "points",
        "grids": "grids",
    }


def test_a_mixed_folder_wants_a_choice(tmp_path: Path, make_folder) -> None:
    folder = make_folder(3)
    (folder / "clip.mp4").write_bytes(b"no video")
    assert modalities_in(str(folder)) == {"image": 3, "video": 1}
    with pytest.raises(UserError, match=r"image \(3\), video \(1\): choose one with --modality"):
        pack(str(folder), tmp_path / "out")
    assert inspect(str(folder))["splits"]["train"]["samples"] == 3
    assert inspect(str(folder))["others"][0]["splits"]["train"]["samples"] == 1
    images, clips = verify(str(folder))
    assert images.problems == []
    (problem,) = clips.problems
    assert problem.startswith("clip.mp4: decode: no video file; known are mp4, ")
    pack(str(folder), tmp_path / "out", PackOptions(modality="image"))
    assert len(open_source(str(tmp_path / "out"))) == 3


def test_samples_of_two_modalities_in_one_shard(tmp_path: Path, picture, write_tar) -> None:
    members = {"a.png": picture(0), "a.xyz": b"no cloud", "b.png": b"no image", "c.png": picture(1)}
    shard = write_tar(tmp_path / "set" / "one.tar", {**members, "d.cls": b"1", "d.xyz": b"1 2 3\n"})
    (report,) = verify(str(shard))
    assert sorted(problem[:9] for problem in report.problems) == ["a: decode", "b: decode"]
    (pictures,) = verify(str(shard.parent), modality="image")
    assert sorted(problem[0] for problem in pictures.problems) == ["b", "d"]


def test_options_of_another_modality_are_refused(tmp_path: Path, make_folder) -> None:
    with pytest.raises(UserError, match="--gop is for video; this is image"):
        pack(str(make_folder(3)), tmp_path / "out", PackOptions(gop=4))


# --- video ---


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    needs.module("av")
    folder = tmp_path_factory.mktemp("clips") / "made"
    assert synthesise("video", folder, count=16, size=48) == {"train": 8, "test": 8}
    return folder


def test_video_as_it_is_for_any_number_of_workers(clips: Path, tmp_path: Path) -> None:
    for name, workers in (("one", 1), ("two", 2)):
        packed = pack(str(clips), tmp_path / name, PackOptions(shard_size=5, workers=workers))
        assert (packed.modality, sum(e.samples for e in packed.shards)) == ("video", 16)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert source_splits(str(tmp_path / "one")) == ["test", "train"]
    for split in ("test", "train"):
        kept = payloads(tmp_path / "one", "video", split)
        assert sorted(kept.values()) == sorted(payloads(clips, "video", split).values())
    assert open_stored(str(tmp_path / "one"), "test", "video").classes == sorted(
        makers()["video"].classes
    )
    assert all(not report.problems for report in verify(str(tmp_path / "one")))


def test_video_encoded_anew(clips: Path, tmp_path: Path) -> None:
    av = needs.module("av")
    options = PackOptions(resize=32, gop=4, split="train")
    for name in ("a", "b"):
        pack(str(clips), tmp_path / name, options)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    for data, _ in payloads(tmp_path / "a", "video").values():
        with av.open(io.BytesIO(data), format="mov") as file:
            frames = list(file.decode(video=0))
        assert [(frame.width, frame.height) for frame in frames] == [(32, 32)] * 16
        keys = [number for number, frame in enumerate(frames) if frame.key_frame]
        assert max(np.diff([*keys, 16])) <= 4
        assert b"Lavf" not in data


def test_corrupt_clips_are_left_out_and_named(clips: Path, tmp_path: Path) -> None:
    shutil.copytree(clips, tmp_path / "clips")
    victim = next((tmp_path / "clips" / "train" / "pan-up").iterdir())
    victim.write_bytes(victim.read_bytes()[:-100])
    packed = pack(str(tmp_path / "clips"), tmp_path / "out")
    assert [(item.key, item.kind) for item in packed.damaged] == [
        (f"pan-up/{victim.name}", "truncated")
    ]
    assert sum(entry.samples for entry in packed.shards) == 15
    assert victim.name in (tmp_path / "out" / "pack.json").read_text()


# --- points ---


@pytest.fixture(scope="module")
def furniture() -> dict[str, np.ndarray]:
    return dict(np.load(CLOUDS, allow_pickle=False))


def test_packed_meshes_and_clouds(tmp_path: Path, furniture: dict[str, np.ndarray]) -> None:
    needs.module("open3d")
    folder = tmp_path / "objects"
    for number, (cloud, label) in enumerate(
        zip(furniture["points"], furniture["label"], strict=True)
    ):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        (folder / str(label) / f"{number}.npy").write_bytes(npy(cloud))
    (folder / "house").mkdir()
    (folder / "house" / "a.obj").write_bytes(HOUSE)
    for name in ("one", "two"):
        pack(str(folder), tmp_path / name, PackOptions(points=256))
    assert files(tmp_path / "one") == files(tmp_path / "two")
    stored = payloads(tmp_path / "one", "points")
    assert {array_of(("npy", data)).shape for data, _ in stored.values()} == {(256, 3)}
    figures = inspect(str(tmp_path / "one"))
    assert figures["modality"] == "points"
    assert figures["splits"]["train"]["classes"] == {
        "house": 1,
        "lamp": 2,
        "seat": 2,
        "sofa": 2,
        "table": 2,
    }
    assert figures["splits"]["train"]["points"] == {"min": 256, "median": 256, "max": 256}
    (report,) = verify(str(tmp_path / "one"))
    assert report.problems == []
    source = open_stored(str(tmp_path / "one"), "train", "points")
    sample = source.read(0, 0)
    with pytest.raises(UserError, match="points samples cannot be trained on"):
        source.decode(sample)


# --- grids ---


def test_grids_round_trip_with_a_sheet(tmp_path: Path) -> None:
    for name in ("made", "again"):
        synthesise("grids", tmp_path / name, count=8, size=16)
    first, second = tmp_path / "made" / "test" / "balls", tmp_path / "again" / "test" / "balls"
    assert files(first) == files(second)
    pack(str(tmp_path / "made"), tmp_path / "out")
    assert payloads(tmp_path / "out", "grids", "test").keys() == {
        key.removesuffix(".npz") for key in payloads(tmp_path / "made", "grids", "test")
    }
    figures = inspect(str(tmp_path / "out"))["splits"]["train"]
    assert figures["density"] == {"log": 4}
    assert 0.1 < figures["occupied"]["median"] < 0.6
    source = open_stored(str(tmp_path / "out"), "train", "grids")
    from PIL import Image

    sheet = Image.open(contact_sheet(source, tmp_path / "sheet.png", "grids"))
    assert sheet.size == (768, 110)
    assert len(set(sheet.convert("RGB").getdata())) > 100


# --- resume ---


def test_a_killed_pack_goes_on_to_the_same_bytes(tmp_path: Path, make_folder) -> None:
    source = str(make_folder(400, classes=3))
    options = PackOptions(shard_size=40, resize=12, quality=80)
    pack(source, tmp_path / "whole", options)
    words = ["data", "pack", source, str(tmp_path / "out"), "--shard-size", "40"]
    words += ["--resize", "12", "--quality", "80"]
    killed = subprocess.Popen([sys.executable, "-m", "mimsuite", *words])
    records = tmp_path / "out" / ".pack"
    while killed.poll() is None and len(list(records.glob("*.json"))) < 3:
        time.sleep(0.002)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert not list((tmp_path / "out").glob("*.tar"))  # nothing is visible before all is there
    with pytest.raises(UserError, match="an interrupted run"):
        pack(source, tmp_path / "out", options)
    with pytest.raises(UserError, match="other options"):
        pack(source, tmp_path / "out", PackOptions(shard_size=40), resume=True)
    damaged = sorted(records.glob("*.tar"))[0]
    damaged.write_bytes(damaged.read_bytes()[:-512])  # is written again
    calls: list[tuple[int, int]] = []
    done = pack(
        source,
        tmp_path / "out",
        options,
        lambda done, total: calls.append((done, total)),
        resume=True,
    )
    assert 2 <= done.kept < 10
    assert calls[0] == (40 * done.kept, 400)
    assert calls[-1] == (400, 400)
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    again = pack(source, tmp_path / "out", options, resume=True)
    assert again.kept == 10
    (Path(source) / "class0" / "000.png").unlink()
    with pytest.raises(UserError, match="other input"):
        pack(source, tmp_path / "out", options, resume=True)


# --- verify ---


def test_verify_names_everything_that_is_wrong(tmp_path: Path) -> None:
    synthesise("points", tmp_path / "made", count=40, size=64)
    pack(str(tmp_path / "made"), tmp_path / "out", PackOptions(shard_size=8))
    out, rng = tmp_path / "out", np.random.default_rng(0)
    shards = sorted(out.glob("*.tar"))
    sound = {path: path.read_bytes() for path in shards}
    for number in range(20):
        path = shards[number % len(shards)]
        data = bytearray(sound[path])
        if number % 2:
            data = data[: int(rng.integers(len(data)))]
        else:
            data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        assert [r.name for r in verify(str(out)) if r.problems] == [path.name]
        path.write_bytes(sound[path])
    shards[0].unlink()
    shards[1].write_bytes(sound[shards[1]][:2000])
    for path in shards[4:]:
        path.unlink()
    reports = {report.name: report.problems for report in verify(str(out), workers=2)}
    assert reports[shards[0].name] == ["missing, though index.json lists it"]
    assert reports[shards[1].name]
    assert not reports[shards[2].name]
    (out / "index.json").write_text("{")
    assert any("index.json" in r.name and r.problems for r in verify(str(out), modality="points"))


def test_training_says_that_shards_hold_something_else(tmp_path: Path) -> None:
    synthesise("points", tmp_path / "made", count=8, size=16)
    pack(str(tmp_path / "made"), tmp_path / "out")
    with pytest.raises(
        (UserError, DataError), match="holds points samples, but the task needs image"
    ):
        open_source(str(tmp_path / "out"), "test")


def test_clips_are_cut_from_photos_that_splits_do_not_share(tmp_path, make_folder):
    photos = make_folder(5)
    for name in ("one", "two"):
        folder = tmp_path / name
        assert synthesise("video", folder, count=16, size=32, photos=str(photos))["test"] == 8
    clips = {
        name: sorted(path.read_bytes() for path in (tmp_path / name).rglob("*.mp4"))
        for name in ("one", "two")
    }
    assert clips["one"] == clips["two"]
    with pytest.raises(UserError, match="--photos is for video; this is points"):
        synthesise("points", tmp_path / "points", photos=str(photos))
    with pytest.raises(UserError, match="has 4 images: 5 or more"):
        synthesise("video", tmp_path / "few", photos=str(make_folder(4, name="few-photos")))
