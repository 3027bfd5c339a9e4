"""Distillation of Pixio: the plain function, traps, teachers that do not fit, its checkpoints."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mimsuite import config
from mimsuite.batch import Batch
from mimsuite.checkpoints import Hints, open_model
from mimsuite.errors import UserError
from mimsuite.methods import build
from mimsuite.noise import FixedNoise

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS)]
from plain_models import State, blocks, embed, layer_norm, linear  # noqa: E402

SMALL = {
    "model.encoder.image_size": 32,
    "model.encoder.patch_size": 4,
    "model.encoder.width": 16,
    "model.encoder.depth": 2,
    "model.encoder.heads": 2,
    "model.encoder.class_tokens": 3,
    "target.teacher.weights": "random",
    "target.teacher.patch_size": 4,
    "target.teacher.width": 64,
    "target.teacher.depth": 2,
    "target.teacher.heads": 1,
    "target.teacher.class_tokens": 3,
}
NOISE = torch.rand(2, 16, generator=torch.Generator().manual_seed(2))
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def shaken(method: Any) -> Any:
    with torch.no_grad():
        for parameter in method.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return method


def made(**changes: Any) -> Any:
    keys = SMALL | {key.replace("__", "."): value for key, value in changes.items()}
    base = config.load("image/pixio-distill-tiny-clipart")
    torch.manual_seed(0)
    return shaken(build(config.with_overrides(base, keys, "test").recipe)).train()


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder as Pixio's authors release theirs."""
    keys = {key: value for key, value in SMALL.items() if "teacher" not in key}
    keys |= {"model.encoder.width": 64, "model.encoder.heads": 1}
    torch.manual_seed(3)
    base = config.load("image/pixio-tiny-clipart")
    method = shaken(build(config.with_overrides(base, keys, "test").recipe))
    state = method.export_reference()
    file = tmp_path_factory.mktemp("teacher") / "pixio.pth"
    decoder = ("decoder_", "mask_token")
    torch.save({n: t for n, t in state.items() if not n.startswith(decoder)}, file)
    return file


def step(method: Any) -> tuple[Any, Tensor]:
    """Its output, and the ids of the visible patches."""
    batch, rows = Batch.of_images(IMAGES), FixedNoise({"mask": NOISE})
    context = method.prepare(batch, rows)
    masks = method.mask(batch, rows, context)
    return method(batch, masks, context), masks["image"].visible


def plain(student: State, teacher: State, visible: Tensor, *, normed: bool = False) -> list[Tensor]:
    """1 - mean cosine of class tokens and of visible patches.

    Args:
        normed: the teacher's last norm is applied, which it must not be.
    """
    statistics = [(0.846, 0.827, 0.803), (0.296, 0.309, 0.336)]  # of the tiny recipes
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in statistics)
    imagenet = [(0.485, 0.456, 0.406), (0.229, 0.224, 0.225)]
    own_mean, own_std = (torch.tensor(each).view(3, 1, 1) for each in imagenet)
    wanted = embed((IMAGES * std + mean - own_mean) / own_std, teacher, 4)
    wanted = blocks(wanted, teacher, "blocks", 2, 1, 1e-6, None)
    if normed:
        wanted = layer_norm(wanted, teacher, "norm", 1e-6)
    hidden = torch.ones(2, 64, dtype=torch.bool).scatter(1, visible, False)
    unseen = torch.cat([torch.zeros(2, 3, dtype=torch.bool), hidden], dim=1)
    x = blocks(embed(IMAGES, student, 4), student, "blocks", 2, 2, 1e-6, unseen)
    x = linear(layer_norm(x, student, "norm", 1e-6), student, "last_proj.0")
    x = layer_norm(x, student, "last_proj.1", 1e-5)
    x = linear(0.5 * x * (1 + torch.erf(x / 2**0.5)), student, "last_proj.3")
    cosine = (x * wanted).sum(-1) / (x.norm(dim=-1) * wanted.norm(dim=-1))  # (B, C + N)
    return [1 - cosine[:, :3].mean(), 1 - cosine[:, 3:][~hidden].mean()]


def test_it_is_the_plain_function(released: Path) -> None:
    method = made(target__teacher__weights=str(released))
    output, visible = step(method)
    assert visible.shape == (2, 32)
    weights = method.export_reference(), torch.load(released, weights_only=True)
    classes, patches = plain(*weights, visible)
    torch.testing.assert_close(output.loss, (classes + patches) / 2, atol=2e-6, rtol=0)
    torch.testing.assert_close(output.terms["classes"], classes / 2, atol=2e-6, rtol=0)
    output.loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in method.parameters())
    normed = plain(*weights, visible, normed=True)
    assert (sum(normed) / 2 - output.loss).abs() > 1e-4
    assert method.projector[1].eps == 1e-5


def test_without_a_mask_the_student_sees_all_patches() -> None:
    output, visible = step(made(mask__ratio=0.0))
    assert visible.sort(dim=1).values.tolist() == [list(range(64))] * 2
    assert output.prediction.shape == (2, 3 + 64, 64)
    assert output.masks["image"].masked.shape == (2, 0)


def test_class_tokens_are_paired_one_to_one(released: Path) -> None:
    with pytest.raises(UserError, match=r"target.teacher has 1, the student 3: set model.encoder"):
        step(made(target__teacher__class_tokens=1))
    keys = {"target__teacher__weights": str(released), "target__teacher__class_tokens": 2}
    method = made(**keys)
    with pytest.raises(UserError, match=r"class_tokens is 2, .* has 3"):
        method.setup(None)
    with pytest.raises(UserError, match="class_tokens 0 leaves none"):
        made(model__encoder__class_tokens=0)


def test_the_student_opens_as_an_encoder(tmp_path: Path) -> None:
    method = made()
    torch.save({"model": method.export_reference(), "epoch": 3}, tmp_path / "student.pth")
    opened = open_model(tmp_path / "student.pth", Hints(heads=2))
    assert opened.resolved.recipe.model.encoder.class_tokens == 3  # type: ignore[attr-defined]
    own, state = method.encoder.state_dict(), opened.method.encoder.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in own.items())
