"""From stored videos to batches of clips: frames, crops, repeats, test views, and exact resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mimsuite import config
from mimsuite.data import open_training_set, train_loader, views_of
from mimsuite.data.modalities import training_decoder
from mimsuite.data.sources.opening import source_splits
from mimsuite.data.video import clip_geometry, clip_indices
from mimsuite.data.video.clip_transform import ClipTransform
from mimsuite.errors import CorruptSample, UserError
from mimsuite.evaluate.scoring.classes import merged
from mimsuite.noise import keyed_rng
from tests.data.numbered_video import numbered, numbers

RECIPE = "video/videomae2-tiny-motion"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> Path:
    root = tmp_path_factory.mktemp("videos")
    for number in range(8):
        place = root / "train" / ("odd" if number % 2 else "even")
        place.mkdir(parents=True, exist_ok=True)
        frames = 20 + 3 * number
        (place / f"{number}.mp4").write_bytes(numbered(size=(64, 80), frames=frames))
    return root


def recipe_of(folder: Path, name: str = RECIPE, **changes: Any) -> config.Resolved:
    keys = {
        "data.source": str(folder),
        "data.workers": 0,
        "train.global_batch": 4,
        "augment.stride": 2,
        "model.encoder.image_size": 48,
        **changes,
    }
    return config.with_overrides(config.load(name), keys, "test")


def batches(resolved: config.Resolved, count: int, start: int = 0) -> list[Any]:
    recipe = resolved.recipe
    normalize = views_of(recipe).normalizer("cpu")
    with train_loader(open_training_set(recipe), recipe, start_step=start) as loader:
        stream = iter(loader)
        return [normalize(next(stream).batch) for _ in range(count)]


def test_a_video_becomes_several_clips_with_rows_of_their_own(folder: Path) -> None:
    (batch,) = batches(recipe_of(folder, **{"augment.repeats": 3}), 1)
    assert batch.views["clip"].shape == (12, 3, 16, 48, 48)
    assert batch.views["clip"].dtype == torch.float32
    assert sorted(batch.index.tolist()) == list(range(12))
    assert batch.index[:4].tolist() == [0, 3, 6, 9]  # all first views before all second ones
    assert batch.keys[:4] == batch.keys[4:8]
    assert torch.equal(batch.label[:4], batch.label[4:8])
    clips = batch.views["clip"]
    assert not torch.equal(clips[0], clips[4])  # another crop of the same frames


def test_the_stream_is_the_same_from_any_step(folder: Path) -> None:
    resolved = recipe_of(folder)
    whole = batches(resolved, 4)
    later = batches(resolved, 2, start=2)
    for one, other in zip(whole[2:], later, strict=True):
        assert one.keys == other.keys
        assert torch.equal(one.views["clip"], other.views["clip"])


def test_evaluation_reads_the_middle_and_tests_read_many_views(folder: Path) -> None:
    changes = {"augment.test_clips": 2, "augment.test_crops": 3, "augment.sampling": "dense"}
    views = views_of(recipe_of(folder, **changes).recipe)
    source = open_training_set(recipe_of(folder).recipe)
    sample = source.decode(source.read(*source.locate(7)))
    middle = views.evaluate(sample)["clip"]
    assert middle.shape == (1, 3, 16, 48, 48)
    assert torch.equal(middle, views.evaluate(sample)["clip"])
    many = views.test()
    assert (views.rows, many.rows) == (1, 6)
    assert many.evaluate(sample)["clip"].shape == (6, 3, 16, 48, 48)


def test_scores_of_views_are_averaged_by_sample() -> None:
    logits = torch.randn(6, 5)  # 3 views of 2 samples, all first ones before all second
    merged_scores = merged(logits, 3)
    own = logits[1::2].softmax(1).mean(0)
    torch.testing.assert_close(merged_scores[1], own)
    assert merged(logits, 1) is logits


def test_all_frames_are_treated_alike_and_stay_in_order() -> None:
    changes = {"augment.hflip": 0.5, "augment.randaugment": "rand-m7-n4-mstd0.5-inc1"}
    section = recipe_of(Path("x"), **changes).recipe.augment
    picture = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    for key in range(4):
        still = ClipTransform(section, (48, 48)).train(np.stack([picture] * 16), keyed_rng(key))
        assert still.shape == (3, 16, 48, 48)
        assert (still == still[:, :1]).all()
    plain = recipe_of(Path("x")).recipe.augment
    brighter = np.stack([np.full((60, 90, 3), 10 * t, np.uint8) for t in range(16)])
    clip = ClipTransform(plain, (48, 48)).train(brighter, keyed_rng(3))
    assert clip[0, :, 0, 0].tolist() == [10 * t for t in range(16)]


def test_frames_too_large_or_broken_are_corrupt_samples(folder: Path) -> None:
    resolved = recipe_of(folder, **{"data.max_pixels": 1000})
    source = open_training_set(resolved.recipe)
    sample = source.decode(source.read(*source.locate(0)))
    with pytest.raises(CorruptSample, match="max_pixels"):
        views_of(resolved.recipe).evaluate(sample)
    with pytest.raises(UserError, match="rgb"):
        open_training_set(recipe_of(folder, **{"data.channels": "gray"}).recipe)


def test_a_damaged_video_is_replaced_and_named(folder: Path, tmp_path: Path) -> None:
    for number, file in enumerate(sorted((folder / "train").rglob("*.mp4"))):
        data = file.read_bytes()
        (tmp_path / f"{number}.mp4").write_bytes(data[:400] if number == 2 else data)
    recipe = recipe_of(tmp_path).recipe
    with train_loader(open_training_set(recipe), recipe) as loader:
        stream = iter(loader)
        damage = [item for _ in range(2) for item in next(stream).damage]
    assert [item.key for item in damage] == ["2.mp4"]


@pytest.mark.parametrize("total", [1, 3, 15, 16, 40, 64, 65, 300])
def test_every_rule_gives_frames_that_exist(total: int) -> None:
    rng = keyed_rng(total)
    rules = [
        *(clip_indices.clip(total, 16, 4, draw) for draw in (rng, None)),
        *(clip_indices.dense(total, 16, 4, draw) for draw in (rng, None)),
        *(clip_indices.segments(total, 16, draw) for draw in (rng, None)),
        *clip_indices.test_clips(total, 16, 4, 5),
        *clip_indices.test_clips(total, 16, 4, 1),
        *clip_indices.test_segments(total, 16, 2),
    ]
    jittered = clip_indices.clip(total, 16, 4, rng, jitter=True)
    assert 0 <= min(jittered) <= max(jittered) < total
    for ids in rules:
        assert len(ids) == 16
        assert min(ids) >= 0
        assert max(ids) < total
        assert ids == sorted(ids)


def test_one_test_clip_and_one_crop_are_central() -> None:
    assert clip_indices.test_clips(300, 16, 4, 1)[0][0] == 4 * ((75 - 16) // 2)
    (box,) = clip_geometry.test_boxes(224, 298, (224, 224), 1)
    assert (box.top, box.left) == (0, 37)


def test_multi_scale_boxes_lie_inside() -> None:
    rng = keyed_rng(1)
    for _ in range(200):
        box = clip_geometry.multi_scale(rng, 240, 320, (224, 224))
        assert box.top + box.height <= 240
        assert box.left + box.width <= 320


def test_a_clip_shows_the_frames_that_its_rule_chose(folder: Path) -> None:
    recipe = recipe_of(folder, **{"model.encoder.image_size": 64}).recipe
    source = open_training_set(recipe)
    sample = source.decode(source.read(*source.locate(0)))  # even/0.mp4, of 20 frames
    clip = views_of(recipe).evaluate(sample)["clip"][0]
    frames = clip.permute(1, 2, 3, 0).numpy()  # the centre: 8 pixels are cut off at either side
    whole = np.pad(frames, ((0, 0), (0, 0), (8, 8), (0, 0)), mode="edge")
    assert numbers(whole) == clip_indices.clip(20, 16, 2, None)


def test_a_folder_of_frames_is_a_video(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for number in range(5):
            place = tmp_path / split / f"class{number % 2}" / f"video{number}"
            place.mkdir(parents=True)
            for frame in range(20):
                picture = np.full((64, 64, 3), 10 * frame, np.uint8)
                Image.fromarray(picture).save(place / f"img_{frame:05d}.png")
    resolved = recipe_of(tmp_path, **{"augment.stride": 1})
    source = open_training_set(resolved.recipe)
    assert (len(source), source.classes) == (5, ["class0", "class1"])
    assert source.key(0, 0) == "class0/video0"
    decoder = training_decoder("video", "rgb", 10_000)
    assert source_splits(str(tmp_path), decoder=decoder) == ["test", "train"]
    clip = views_of(resolved.recipe).evaluate(source.decode(source.read(0, 0)))["clip"]
    assert clip[0, 0, :, 0, 0].tolist() == [10 * t for t in clip_indices.clip(20, 16, 1, None)]
    assert batches(resolved, 1)[0].views["clip"].shape == (8, 3, 16, 48, 48)
    (tmp_path / "train" / "class0" / "video0" / "img_00003.png").write_bytes(b"nothing")
    with pytest.raises(CorruptSample):
        source.decode(source.read(0, 0)).read(lambda total: [3])


def test_a_second_view_is_another_part_of_the_same_frames(folder: Path) -> None:
    second = {"crop": "random-resized", "crop_scale": [0.3, 0.6], "hflip": 1.0, "jitter": 0.4}
    recipe = recipe_of(folder, **{"augment.second_view": second, "augment.repeats": 2}).recipe
    views = views_of(recipe)
    source = open_training_set(recipe)
    sample = source.decode(source.read(*source.locate(0)))
    found = views.train(sample, keyed_rng(1))
    assert {name: (2, *shape) for name, shape in views.shapes().items()} == {
        name: tuple(view.shape) for name, view in found.items()
    }
    assert list(found) == ["clip", "clip2"]
    plain = views_of(recipe_of(folder, **{"augment.repeats": 2}).recipe)
    assert torch.equal(found["clip"], plain.train(sample, keyed_rng(1))["clip"])
    assert not torch.equal(found["clip"], found["clip2"])
    again = views.train(sample, keyed_rng(1))
    assert torch.equal(found["clip2"], again["clip2"])
    assert list(views.evaluate(sample)) == ["clip"]
    (batch,) = batches(recipe_of(folder, **{"augment.second_view": second}), 1)
    assert batch.views["clip2"].shape == batch.views["clip"].shape == (8, 3, 16, 48, 48)


def test_all_frames_of_a_clip_change_colour_alike() -> None:
    section = recipe_of(Path("x"), **{"augment.jitter": 0.4}).recipe.augment
    picture = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    still = np.stack([picture] * 16)
    clip = ClipTransform(section, (48, 48)).train(still, keyed_rng(2))
    assert (clip == clip[:, :1]).all()
    plain = ClipTransform(recipe_of(Path("x")).recipe.augment, (48, 48)).train(still, keyed_rng(2))
    assert not torch.equal(clip, plain)


def test_frames_a_second_set_the_stride_by_the_rate_of_the_file(folder: Path) -> None:
    changes = {"augment.sampling": "dense", "model.encoder.frames": 4, "augment.fps": 5.0}
    views: Any = views_of(recipe_of(folder, **changes).recipe)
    source = open_training_set(recipe_of(folder).recipe)
    sample = source.decode(source.read(*source.locate(7)))
    rates = []
    frames = sample.read_timed(
        lambda total, rate: rates.append(rate) or views._indices(total, rate, None)
    )
    assert rates == [25.0]
    assert numbers(frames) == clip_indices.dense(41, 4, 5, None)


def test_a_stride_by_time_is_at_least_one_frame() -> None:
    rates = (29.97, 30.0, 23.976, 12.0, 3.0)
    assert [clip_indices.stride_at(rate, 4) for rate in rates] == [7, 7, 6, 3, 1]


def test_joined_clips_lie_in_their_parts_of_the_video(folder: Path) -> None:
    changes = {
        "augment.sampling": "dense",
        "augment.joined_clips": 2,
        "augment.test_crops": 3,
        "model.encoder.frames": 4,
        "augment.crop": "resize",
        "augment.hflip": 0.0,
    }
    resolved = recipe_of(folder, name="video/tiny-attentive", **changes)
    views, source = views_of(resolved.recipe), open_training_set(resolved.recipe)
    sample = source.decode(source.read(*source.locate(7)))
    assert views.shapes() == {"clip": (3, 8, 48, 48)}
    clip = views.train(sample, keyed_rng(1))["clip"]
    assert clip.shape == (1, 3, 8, 48, 48)
    shown = numbers(sample.read(lambda total: views._indices(total, 25.0, keyed_rng(1))))
    assert max(shown[:4]) < 20 <= min(shown[4:])  # halves of 41 frames
    assert views.test().evaluate(sample)["clip"].shape == (3, 3, 8, 48, 48)


def test_joined_clips_need_parts(folder: Path) -> None:
    for changes in ({"augment.sampling": "clip"}, {"augment.test_clips": 2}):
        keys = {"augment.sampling": "dense", "augment.joined_clips": 2, **changes}
        with pytest.raises(UserError, match="joined_clips > 1 needs"):
            recipe_of(folder, name="video/tiny-attentive", **keys)
