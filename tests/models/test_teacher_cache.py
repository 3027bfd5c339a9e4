"""Features kept on disk: found again by what made them, never a damaged or a wrong one."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from mimsuite import config
from mimsuite.config.keys.shared import AugmentSection
from mimsuite.config.keys.teachers import TeacherSection
from mimsuite.errors import DataError, UserError
from mimsuite.models.teachers import Teacher, TeacherFeatures, build_teacher
from mimsuite.models.teachers.cached import checksum, flat
from mimsuite.models.teachers.feature_store import FeatureStore
from mimsuite.train.run import train

SMALL = {"kind": "dino", "weights": "random", "width": 16, "depth": 3, "heads": 2, "patch_size": 8}
ASKED: dict[str, Any] = {"hidden": (2, 3), "cls_attention": True, "qkv": (1,)}
KEYS = ["a", "b/c.png", "ü", "d"]


def teacher(folder: Path | None, augment: dict[str, Any] | None = None, **keys: Any) -> Teacher:
    cache = {} if folder is None else {"cache": str(folder)}
    section = TypeAdapter(TeacherSection).validate_python({**SMALL, **cache, **keys})
    augment = {"crop": "resize", "hflip": 0.0, **(augment or {})}
    built = build_teacher(section, (4, 4), AugmentSection(**augment))
    built.open()
    return built


def images(samples: int = 4, size: int = 32) -> Tensor:
    return torch.randn(samples, 3, size, size, generator=torch.Generator().manual_seed(1))


def seen_by(asked: Teacher) -> list[int]:
    """How many images each call of its network gets."""
    counts: list[int] = []
    asked._opened().register_forward_pre_hook(lambda module, given: counts.append(len(given[0])))
    return counts


def same(first: TeacherFeatures, second: TeacherFeatures) -> bool:
    one, other = flat(first), flat(second)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_what_was_computed_is_found_again_by_another_process(tmp_path: Path) -> None:
    plain = teacher(None).features(images(), **ASKED)
    first = teacher(tmp_path).features(images(), **ASKED, keys=KEYS)
    assert same(first, plain)
    again = teacher(tmp_path)
    counts = seen_by(again)
    assert same(again.features(images(), **ASKED, keys=KEYS), plain)
    assert counts == []
    reverse = again.features(images().flip(0), **ASKED, keys=KEYS[::-1])
    assert torch.equal(reverse.tokens.flip(0), plain.tokens)
    assert len(files(tmp_path)) == 4


def test_only_missing_samples_are_computed(tmp_path: Path) -> None:
    asked = teacher(tmp_path)
    counts = seen_by(asked)
    asked.features(images()[:3], keys=KEYS[:3])
    found = asked.features(images(), keys=KEYS)
    assert counts == [3, 1]
    torch.testing.assert_close(found.tokens, teacher(None).features(images()).tokens)
    loss = found.tokens.clone().requires_grad_().sum()  # no tensor of inference mode
    loss.backward()


def test_without_keys_nothing_is_kept(tmp_path: Path) -> None:
    asked = teacher(tmp_path)
    asked.features(images(), **ASKED)
    assert files(tmp_path) == []


def test_whatever_decides_the_features_finds_them_apart(tmp_path: Path) -> None:
    def computed(asked: Teacher, size: int = 32, **wanted: Any) -> bool:
        counts = seen_by(asked)
        asked.features(images(size=size), **wanted, keys=KEYS)
        return counts == [4]

    assert computed(teacher(tmp_path))
    assert not computed(teacher(tmp_path))
    assert computed(teacher(tmp_path), hidden=(1,))
    assert computed(teacher(tmp_path), size=40)
    assert computed(teacher(tmp_path, {"crop": "none"}))
    assert computed(teacher(tmp_path, {"interpolation": "bilinear"}))
    assert computed(teacher(tmp_path, {"mean": (0.5, 0.5, 0.5)}))
    assert computed(teacher(tmp_path, layer=2))
    assert computed(teacher(tmp_path, norm_eps=1e-12))
    other = teacher(tmp_path)
    with torch.no_grad():
        other._opened().norm.bias += 1e-3
    other.open()  # as another process with these weights would
    assert computed(other)
    with torch.autocast("cpu", torch.bfloat16):
        assert computed(teacher(tmp_path))


@pytest.mark.parametrize("fault", ["flipped", "cut", "empty"])
def test_damage_is_found_said_and_mended(
    tmp_path: Path, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    plain = teacher(tmp_path).features(images(), **ASKED, keys=KEYS)
    broken = files(tmp_path)[1]
    content = bytearray(broken.read_bytes())
    content[len(content) // 2] ^= 1
    broken.write_bytes({"flipped": content, "cut": content[:-9], "empty": b""}[fault])
    again = teacher(tmp_path)
    counts = seen_by(again)
    with caplog.at_level(logging.WARNING, "mimsuite"):
        found = again.features(images(), **ASKED, keys=KEYS)
    assert counts == [1]
    for name, tensor in flat(found).items():
        torch.testing.assert_close(tensor, flat(plain)[name])
    assert [record.getMessage() for record in caplog.records] == [
        f"cached features {broken} are damaged: they are computed again"
    ]
    again.features(images(), **ASKED, keys=KEYS)
    assert counts == [1]


def test_a_key_with_another_image_stops_the_run(tmp_path: Path) -> None:
    asked = teacher(tmp_path)
    asked.features(images(), keys=KEYS)
    changed = images()
    changed[2, 0, 0, 0] += 1e-3
    with pytest.raises(DataError, match=r"sample ü is another image .*target\.teacher\.cache=null"):
        asked.features(changed, keys=KEYS)


def test_checksums_tell_small_changes_apart() -> None:
    one = torch.zeros(1, 3, 4, 4)
    changes = [one]
    for place in range(48):
        other = one.clone()
        other.view(-1)[place] = 1.0
        changes.append(other)
    swapped = one.clone()
    swapped.view(-1)[:2] = torch.tensor([1.0, 2.0])
    changes += [swapped, swapped.flip(0, 1, 2, 3), -swapped]
    sums = [int(checksum(change)) for change in changes]
    assert len(set(sums)) == len(sums)
    assert torch.equal(checksum(torch.cat(changes)), torch.tensor(sums))


def test_the_size_is_said_and_kept_to(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    limited = teacher(tmp_path, cache_gib=4e-6)  # 4295 bytes: room for three samples
    line = limited.open()[-1]
    assert line == f"teacher cache: {tmp_path}, 0 KiB of at most 4.19 KiB; 1 KiB or more per sample"
    with caplog.at_level(logging.WARNING, "mimsuite"):
        for _ in range(2):
            found = limited.features(images(), keys=KEYS)
    assert same(found, teacher(None).features(images()))
    kept = files(tmp_path)
    assert len(kept) == 3
    assert sum(path.stat().st_size for path in kept) <= 4295
    assert len(caplog.records) == 1
    assert "is full (4e-06 GiB by target.teacher.cache_gib)" in caplog.records[0].getMessage()
    held = sum(path.stat().st_size for path in kept)
    assert f"{tmp_path}, {held / 1024:.3g} KiB of at most 50 GiB" in teacher(tmp_path).open()[-1]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"target\.teacher\.cache=.*/file: .*: name a folder"):
        teacher(tmp_path / "file")


def test_a_file_is_whole_or_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = FeatureStore(tmp_path, 1.0, "target.teacher.cache")
    store.write("group", "old", {"tokens": torch.zeros(3)})

    def full(*names: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with caplog.at_level(logging.WARNING, "mimsuite"):
        for name in ("old", "new"):
            store.write("group", name, {"tokens": torch.ones(3)})
    assert len(caplog.records) == 1
    assert "cannot be written (No space left on device)" in caplog.records[0].getMessage()
    assert len(files(tmp_path)) == 1
    old = store.read("group", "old")
    assert old is not None
    assert torch.equal(old["tokens"], torch.zeros(3))
    assert store.read("group", "new") is None


RECIPES = {
    "image/maskalign-b-in1k": "target.teacher",
    "image/caev2-base-in1k": "target.teacher",
    "image/mr-mae-vitb16-in1k": "target.teacher",
    "image/hybrid-vitb16-in1k": "target.features.teacher",
}


@pytest.mark.parametrize("name", RECIPES)
def test_random_views_are_refused_with_their_keys(name: str, tmp_path: Path) -> None:
    key = RECIPES[name]
    given = [f"{key}.cache={tmp_path}"]
    with pytest.raises(UserError) as fault:
        config.load(name, given)
    text = str(fault.value)
    assert f"{key}.cache needs views that are the same in every epoch" in text
    assert "augment.crop" in text
    assert "augment.crop=resize" in text
    assert f"or {key}.cache=null" in text
    assert "\n" not in text.strip()
    with pytest.raises(UserError, match=r"drawn anew by augment.hflip: set augment.hflip=0, or"):
        config.load(name, [*given, "augment.crop=resize", "augment.jitter=0", "augment.hflip=0.5"])
    config.load(name, [*given, "augment.crop=resize", "augment.jitter=0", "augment.hflip=0"])


def test_a_run_with_a_cache_learns_the_same(tmp_path: Path) -> None:
    keys = {
        "model.encoder.drop_path": 0.0,
        "model.encoder.image_size": 32,
        "model.encoder.patch_size": 8,
        "model.encoder.width": 32,
        "model.encoder.depth": 5,
        "model.encoder.heads": 4,
        "target.teacher.weights": "random",
        "target.teacher.patch_size": 8,
        "target.teacher.width": 16,
        "target.teacher.depth": 5,
        "target.teacher.heads": 2,
        "augment.crop": "resize",
        "augment.hflip": 0.0,
        "augment.eval_resize": None,
        "data.source": "embedded:openclipart",
        "data.limit": 32,
        "data.workers": 0,
        "train.global_batch": 8,
        "train.micro_batch": None,
        "train.device": "cpu",
        "schedule.epochs": 2,
        "schedule.warmup_epochs": 0,
        "log.every_steps": 1,
        "log.pictures_every_epochs": 1,
    }

    def losses(name: str, **more: Any) -> list[float]:
        recipe = config.with_overrides(
            config.load("image/maskalign-b-in1k", smoke=True), {**keys, **more}, "test"
        )
        train(recipe, tmp_path / name, quiet=True)
        rows = (tmp_path / name / "metrics.csv").read_text().splitlines()
        column = rows[0].split(",").index("loss")
        return [float(row.split(",")[column]) for row in rows[1:]]

    folder = tmp_path / "cache"
    plain = losses("plain")
    kept = losses("kept", **{"target.teacher.cache": str(folder)})
    assert len(plain) == 8
    assert kept == pytest.approx(plain, rel=1e-4)
    assert len(files(folder)) == 32  # pictures of held-out samples leave none
    assert "teacher cache: " in (tmp_path / "kept" / "train.log").read_text()
