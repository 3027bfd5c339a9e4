"""Tar shards whose samples are numbered pictures, the frames of a video."""

from __future__ import annotations

import io
import pickle
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mimsuite import config
from mimsuite.data import open_training_set, train_loader, views_of
from mimsuite.data.shards.frame_tars import FrameTarSource, are_frames, is_frame
from mimsuite.data.video import clip_indices
from mimsuite.errors import CorruptSample

FRAMES = 20


def picture(value: int, side: int = 64) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), value, np.uint8)).save(file, "PNG")
    return file.getvalue()


def add(shard: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    shard.addfile(info, io.BytesIO(data))


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """Nine videos; in each the frames lie in falling order, with other members between them."""
    path = tmp_path / "videos-000000.tar"
    with tarfile.open(path, "w") as file:
        for number in range(9):
            for frame in range(FRAMES, 0, -1):
                add(file, f"v{number}.{frame}.png", picture(10 * frame + number))
            add(file, f"v{number}.thumbnail.png", picture(255))
            add(file, f"v{number}.cls", str(number % 2).encode())
            add(file, f"v{number}.json", b"{}")
    return path


def recipe_of(path: Path, **changes: Any) -> Any:
    keys = {
        "data.source": str(path),
        "data.workers": 0,
        "train.global_batch": 4,
        "augment.stride": 1,
        "model.encoder.image_size": 32,
        **changes,
    }
    return config.with_overrides(config.load("video/videomae2-tiny-motion"), keys, "t").recipe


def test_frames_are_those_that_the_rule_chose_in_the_order_of_their_numbers(shard: Path) -> None:
    recipe = recipe_of(shard)
    source = open_training_set(recipe)
    assert isinstance(source, FrameTarSource)
    assert (len(source), source.labelled, source.label(0, 3)) == (9, True, 1)
    assert source.key(0, 3) == "v3"
    clip = views_of(recipe).evaluate(source.decode(source.read(0, 3)))["clip"]
    chosen = clip_indices.clip(FRAMES, 16, 1, None)
    assert clip[0, 0, :, 0, 0].tolist() == [10 * (number + 1) + 3 for number in chosen]
    assert source.sample_bytes(0, 3) == sum(len(picture(10 * f + 3)) for f in range(1, FRAMES + 1))
    copy = pickle.loads(pickle.dumps(source))
    assert torch.equal(clip, views_of(recipe).evaluate(copy.decode(copy.read(0, 3)))["clip"])


def test_only_wanted_frames_are_read(shard: Path) -> None:
    source = open_training_set(recipe_of(shard))
    asked: list[int] = []
    read = source._read_member

    def counted(opened: Any, member: int) -> bytes:
        asked.append(member)
        return read(opened, member)

    source._read_member = counted
    sample = source.decode(source.read(0, 0))
    asked.clear()
    frames = sample.read(lambda total: [total - 1, 4, 4])
    assert frames[:, 0, 0, 0].tolist() == [200, 50, 50]
    assert len(asked) == 2


def test_they_are_trained_on_and_resumed(shard: Path) -> None:
    def keys(start: int) -> Iterator[list[str]]:
        recipe = recipe_of(shard, **{"data.workers": 1})
        with train_loader(open_training_set(recipe), recipe, start_step=start) as loader:
            stream = iter(loader)
            for _ in range(start, 4):
                batch = next(stream).batch
                assert batch.views["clip"].shape == (4, 2, 3, 16, 32, 32)
                yield batch.keys

    assert list(keys(0))[2:] == list(keys(2))


def changed(shard: Path, where: Callable[[bytes], int]) -> None:
    data = bytearray(shard.read_bytes())
    data[where(bytes(data))] ^= 1
    shard.write_bytes(data)


def test_damage_of_a_frame_is_the_sample_s(shard: Path, tmp_path: Path) -> None:
    recipe = recipe_of(shard)
    open_training_set(recipe)  # indexed as it is
    changed(shard, lambda data: data.index(picture(10 * 7 + 2)) + 20)
    source = open_training_set(recipe)
    sample = source.decode(source.read(0, 2))
    assert sample.read(lambda total: [5]).shape == (1, 64, 64, 3)
    with pytest.raises(CorruptSample, match="changed since"):
        sample.read(lambda total: [6])
    with train_loader(source, recipe) as loader:
        stream = iter(loader)
        found = [item.key for _ in range(2) for item in next(stream).damage]
    assert set(found) <= {"v2"}


def test_samples_without_frames_and_frames_of_several_sizes(tmp_path: Path) -> None:
    path = tmp_path / "odd.tar"
    with tarfile.open(path, "w") as file:
        for name, side in (("a.1.png", 64), ("a.2.png", 32), ("b.png", 64), ("c.1.png", 64)):
            add(file, name, picture(1, side))
        add(file, "c.2.png", b"no picture")
    recipe = recipe_of(path)
    source = open_training_set(recipe)
    with pytest.raises(CorruptSample, match="several sizes"):
        source.decode(source.read(0, 0)).read(lambda total: [0, 1])
    with pytest.raises(CorruptSample, match="no numbered picture"):
        source.read(0, 1)
    with pytest.raises(CorruptSample, match="no image"):
        source.decode(source.read(0, 2)).read(lambda total: [1])
    small = open_training_set(recipe_of(path, **{"data.max_pixels": 1000}))
    with pytest.raises(CorruptSample, match="pixels"):
        small.decode(small.read(0, 0)).read(lambda total: [0])


def test_what_is_a_frame() -> None:
    names = ["000017.jpg", "img_00003.jpeg", "view2.0001.png", "7.webp", "1305031102175304.png"]
    others = ["jpg", "thumbnail.jpg", "1.txt", "1.mp4", "17.jpg.txt"]
    assert all(map(is_frame, names))
    assert not any(map(is_frame, others))
    assert are_frames(["cls", "1.jpg", "2.jpg"], ("mp4", "avi"))
    assert not are_frames(["cls", "1.jpg", "mp4"], ("mp4", "avi"))
    assert not are_frames(["jpg", "depth.png"], ("mp4",))
