"""Fine-tuning on the scores of a trained classifier."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mimsuite import config
from mimsuite.batch import Batch
from mimsuite.checkpoints import open_model
from mimsuite.config import Resolved
from mimsuite.errors import UserError
from mimsuite.methods import build
from mimsuite.noise import Noise
from mimsuite.train import checkpoint
from mimsuite.train.estimate import estimate

SIZES = {
    "model.encoder.image_size": 16,
    "model.encoder.patch_size": 8,
    "model.encoder.width": 16,
    "model.encoder.depth": 2,
    "model.encoder.heads": 2,
    "model.encoder.drop_path": 0.0,
    "model.head_init_std": 1.0,
    "augment.eval_resize": None,
    "target.classes": 3,
}


def resolved(**changes: Any) -> Resolved:
    keys = SIZES | {key.replace("__", "."): value for key, value in changes.items()}
    return config.with_overrides(config.load("image/mae-vitb16-finetune-in1k"), keys, "test")


def teacher(folder: Path, **changes: Any) -> Path:
    recipe = resolved(**changes)
    torch.manual_seed(1)
    state = build(recipe.recipe).state_dict()
    checkpoint.save(folder / "checkpoints", checkpoint.CheckpointState(5, recipe.document, state))
    return folder


def student(weights: Path | str, **changes: Any) -> Any:
    keys = {"target__teacher": {"weights": str(weights)}} | changes
    torch.manual_seed(0)
    return build(resolved(**keys).recipe).train()


def samples() -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch.of_images(torch.randn(4, 3, 16, 16, generator=generator), torch.arange(4) % 3)


def target(method: Any, mixing: bool = False) -> tuple[Tensor, Tensor]:
    """What is shown and what is to be learnt."""
    batch = samples()
    if not mixing:
        method.mix = type(method.mix)()
    context = method.prepare(batch, Noise(0, 0, batch.index))
    return context.prepared["image"], context.prepared["target"]


def test_the_teacher_says_what_is_learnt_of_the_mixed_samples(tmp_path: Path) -> None:
    weights = teacher(tmp_path)
    method, opened = student(weights), open_model(weights).method
    assert method.setup(None) == [f"teacher: {weights}, scores of 3 classes"]
    image, learnt = target(method, mixing=True)
    assert not torch.equal(image, samples().image)
    with torch.no_grad():
        torch.testing.assert_close(learnt, opened.logits(image).softmax(-1))  # type: ignore[operator]


def test_labels_and_scores_may_share_the_target(tmp_path: Path) -> None:
    weights = str(teacher(tmp_path))
    _, told = target(student(weights))
    _, labels = target(student(weights, target__teacher=None))
    _, both = target(student(weights, target__teacher={"weights": weights, "weight": 0.25}))
    torch.testing.assert_close(both, 0.25 * told + 0.75 * labels)


def test_a_teacher_of_other_statistics_sees_the_same_pixels(tmp_path: Path) -> None:
    own = {"augment__mean": [0.1, 0.2, 0.3], "augment__std": [0.4, 0.5, 0.6]}
    weights = teacher(tmp_path, **own)
    method, opened = student(weights), open_model(weights).method
    _, learnt = target(method)
    augment: Any = method.recipe.augment
    mean, std, other, spread = (
        torch.tensor(values).view(1, 3, 1, 1)
        for values in (augment.mean, augment.std, own["augment__mean"], own["augment__std"])
    )
    pixels = (samples().image * std + mean - other) / spread
    with torch.no_grad():
        torch.testing.assert_close(learnt, opened.logits(pixels).softmax(-1))  # type: ignore[operator]


def test_the_teacher_is_frozen_and_no_part_of_the_student(tmp_path: Path) -> None:
    weights = teacher(tmp_path)
    method, batch = student(weights), samples()
    assert method.state_dict().keys() == build(resolved().recipe).state_dict().keys()
    noise = Noise(0, 0, batch.index)
    context = method.prepare(batch, noise)
    method(batch, {}, context).loss.backward()
    assert not context.prepared["target"].requires_grad
    assert copy.deepcopy(method).teacher is method.teacher
    method.eval()
    one_hot = method.prepare(batch, noise).prepared["target"]  # no teacher where it is scored
    assert torch.equal(one_hot.argmax(1), batch.label)
    assert float(one_hot.max()) == 1.0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"target__classes": 4}, "scores 4 classes, target.classes is 3"),
        ({"model__encoder__image_size": 24}, "takes samples of 3 x 24 x 24, model.encoder of 3 x"),
        ({"model__encoder__depth": 1}, r"set target\.teacher\.depth=1"),
    ],
)
def test_another_teacher_is_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    weights = teacher(tmp_path, **changes)
    told = {"weights": str(weights), "depth": 2}
    with pytest.raises(UserError, match=words):
        student(weights, target__teacher=told).setup(None)


def test_no_weights_are_named() -> None:
    with pytest.raises(UserError, match=r"target\.teacher\.weights is not set"):
        student("").setup(None)


def test_its_costs_are_counted_without_it() -> None:
    alone = estimate(resolved().recipe)
    small = estimate(resolved(target__teacher={}).recipe)
    large = estimate(resolved(target__teacher={"depth": 4}).recipe)
    assert alone.parameters == small.parameters == large.parameters
    assert alone.flops < small.flops < large.flops


def test_clips_are_distilled_too() -> None:
    keys = {
        **{key: value for key, value in SIZES.items() if "eval_resize" not in key},
        "model.encoder.frames": 4,
        "target.teacher.weights": "random",
        "target.teacher.patch_size": 4,
        "target.teacher.width": 24,
        "target.teacher.depth": 1,
        "target.teacher.heads": 2,
    }
    recipe = config.with_overrides(config.load("video/videomae2-vitb16-distill-k710"), keys, "test")
    torch.manual_seed(0)
    method: Any = build(recipe.recipe).train()
    assert "RANDOM WEIGHTS" in method.setup(None)[0]
    clips = Batch.of_views({"clip": torch.randn(2, 3, 4, 16, 16)}, torch.tensor([0, 1]))
    noise = Noise(0, 0, clips.index)
    context = method.prepare(clips, noise)
    assert context.prepared["target"].shape == (2, 3)
    torch.testing.assert_close(context.prepared["target"].sum(1), torch.ones(2))
    method(clips, {}, context).loss.backward()
