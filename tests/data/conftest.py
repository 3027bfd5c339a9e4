"""Small sets on disk, and recipes to read them by."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mimsuite.config.keys.shared import Recipe

Members = dict[str, bytes]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIMSUITE_CACHE", str(tmp_path_factory.mktemp("cache")))


def bare_recipe(channels: int = 3, **sections: dict[str, Any]) -> Recipe:
    """A recipe with a model that is only an image size, 12, and a number of channels."""
    document: dict[str, Any] = {
        "method": {"name": "none"},
        "model": None,
        "mask": None,
        "target": None,
        "optim": {"lr": 1e-3},
        "schedule": {"epochs": 1},
        "train": {"global_batch": 8},
        "data": {"workers": 0},
    }
    for name, keys in sections.items():
        document[name] = {**(document.get(name) or {}), **keys}
    model = SimpleNamespace(encoder=SimpleNamespace(in_channels=channels, image_size=12))
    return Recipe.model_validate(document).model_copy(update={"model": model})


@pytest.fixture
def make_recipe() -> Callable[..., Recipe]:
    """``make_recipe(train={...}, data={...}, augment={...})``, see :func:`bare_recipe`."""
    return bare_recipe


@pytest.fixture
def picture() -> Callable[..., bytes]:
    """``picture(3)``: bytes of a small image that no other number gives."""

    def draw(number: int, form: str = "PNG", size: tuple[int, int] = (20, 16)) -> bytes:
        rng = np.random.default_rng(number)
        coarse = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
        stream = io.BytesIO()
        Image.fromarray(coarse).resize(size, Image.Resampling.BILINEAR).save(stream, form)
        return stream.getvalue()

    return draw


@pytest.fixture
def make_folder(tmp_path: Path, picture: Callable[..., bytes]) -> Callable[..., Path]:
    """``make_folder(20)``: a folder of images; ``classes`` deals them to sub-folders."""

    def write(count: int, classes: int = 0, name: str = "photos") -> Path:
        root = tmp_path / name
        for number in range(count):
            folder = root / f"class{number % classes}" if classes else root
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number:03d}.png").write_bytes(picture(number))
        return root

    return write


@pytest.fixture
def write_tar() -> Callable[..., Path]:
    """``write_tar(path, {"a.png": bytes})``: a tar as another tool would write it."""

    def write(path: Path, members: Members | list[tuple[str, bytes]]) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pairs = members.items() if isinstance(members, dict) else members
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
            for name, data in pairs:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        return path

    return write


@pytest.fixture
def make_shards(
    tmp_path: Path, picture: Callable[..., bytes], write_tar: Callable[..., Path]
) -> Callable[..., Path]:
    """``make_shards([7, 5])``: a folder of shards with so many samples, keys and labels unique."""

    def write(counts: list[int], name: str = "shards", labels: bool = True) -> Path:
        number = 0
        for shard, count in enumerate(counts):
            members: Members = {}
            for _ in range(count):
                members[f"{number:05d}.png"] = picture(number)
                if labels:
                    members[f"{number:05d}.cls"] = str(number % 3).encode()
                number += 1
            write_tar(tmp_path / name / f"part-{shard:03d}.tar", members)
        return tmp_path / name

    return write
