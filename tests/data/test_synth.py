"""Made-up samples in any number: each class to train on and to test, or the least number."""

from __future__ import annotations

import dataclasses

import pytest

from mimsuite.cli.main import main
from mimsuite.data.synthetic import rendered_scenes, synth

KINDS = [(kind, parts) for parts in (False, True) for kind in synth.makers(parts=parts)]


@pytest.fixture
def empty_files(monkeypatch):
    """Makers that write nothing: what matters here is which samples there are."""
    real = synth.makers

    def dull(*, parts=False):
        make = lambda name, split, size, rng: b""  # noqa: E731
        return {
            kind: dataclasses.replace(one, make=make, label_map=one.label_map and make)
            for kind, one in real(parts=parts).items()
        }

    monkeypatch.setattr(synth, "makers", dull)


@pytest.mark.parametrize(("kind", "parts"), KINDS)
def test_every_count_gives_both_splits_of_every_class(empty_files, tmp_path, kind, parts):
    for count in range(2, 41):
        out = tmp_path / str(count)
        written = synth.synthesise(kind, out, count=count, parts=parts)
        assert sum(written.values()) == count
        names = [path.name for path in out.rglob("*.*")]
        assert len([name for name in names if ".label." not in name]) == count
        assert written["train"] >= written["test"] > 0
        classes = {
            split: {path.name for path in (out / split).iterdir()} for split in ("train", "test")
        }
        assert classes["train"] == classes["test"]


@pytest.mark.parametrize("kind", [*synth.makers(), "scenes"])
def test_one_sample_is_refused_with_the_least_count(kind, tmp_path, capsys):
    assert main(["data", "synth", kind, str(tmp_path / "x"), "--count", "1"]) == 2
    assert "--count 1 is too few: 2 or more" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_rendered_scenes_have_both_splits_from_two_on():
    splits = ["test" if n % rendered_scenes._TEST_EVERY == 0 else "train" for n in range(2)]
    assert set(splits) == {"train", "test"}


@pytest.mark.parametrize(("kind", "size"), [("video", 32), ("grids", 16)])
def test_a_first_try_with_few_samples_trains(kind, size, tmp_path):
    made = str(tmp_path / "made")
    count = {"video": "8", "grids": "4"}[kind]
    assert main(["data", "synth", kind, made, "--count", count, "--size", str(size)]) == 0
    recipe = {"video": "video/videomae2-tiny-motion", "grids": "volume/nerf-mae-tiny-rooms"}[kind]
    words = ["--smoke", "--data", made, "--out", str(tmp_path / "run"), "train.global_batch=2"]
    assert main(["pretrain", recipe, *words, "schedule.epochs=1", "schedule.warmup_epochs=0"]) == 0
