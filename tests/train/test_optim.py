"""Schedules, groups, guards and state of the optimizer."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from mimsuite.batch import Batch
from mimsuite.config.keys.shared import GroupSection
from mimsuite.errors import UserError
from mimsuite.methods.mae import MAE, MAERecipe
from mimsuite.noise import Noise
from mimsuite.schedule import half_cosine
from mimsuite.train.lars import LARS
from mimsuite.train.meter import Meter
from mimsuite.train.optim import build_optimizer, param_groups, set_lr, set_schedules
from mimsuite.train.precision import Precision
from mimsuite.train.state import load_optimizer, optimizer_tensors
from mimsuite.train.step import StepResult, train_step


def tiny_recipe(**changes: object) -> MAERecipe:
    encoder = {"image_size": 16, "patch_size": 4, "width": 16, "depth": 2, "heads": 2}
    document = {
        "method": {"name": "mae"},
        "model": {"encoder": encoder, "decoder": {"width": 8, "depth": 1, "heads": 2}},
        "mask": {"ratio": 0.75},
        "target": {"normalize": True},
        "optim": {"lr": 1e-2},
        "schedule": {"epochs": 1.0},
        "train": {"global_batch": 4},
    }
    return MAERecipe.model_validate(document | changes)


def one_step(method: MAE, optimizer: torch.optim.Optimizer, images: Tensor) -> StepResult:
    set_lr(optimizer, 1e-2)
    halves = [Batch.of_images(images).rows(0, 2), Batch.of_images(images).rows(2, 4)]
    return train_step(
        method,
        optimizer,
        halves,
        2,
        noise=lambda batch: Noise(0, 0, batch.index),
        precision=Precision("fp32", torch.device("cpu")),
    )


def test_half_cosine_ends_and_middle() -> None:
    settings = {"lr": 2.0, "min_lr": 0.5, "warmup_epochs": 10.0, "epochs": 110.0}
    assert half_cosine(0, **settings) == 0
    assert half_cosine(5, **settings) == 1.0
    assert half_cosine(10, **settings) == 2.0
    assert math.isclose(half_cosine(60, **settings), 1.25)
    assert math.isclose(half_cosine(110, **settings), 0.5)


def test_biases_and_norms_do_not_decay_and_tokens_do() -> None:
    groups = param_groups(MAE(tiny_recipe()), 0.05)
    decayed = {name for g in groups if g["weight_decay"] for name in g["names"]}
    spared = {name for g in groups if not g["weight_decay"] for name in g["names"]}
    assert {"encoder.cls_token", "decoder.mask_token"} <= decayed
    assert not any("norm" in name or name.endswith("bias") for name in decayed)
    assert not any("pos_embed" in name for name in decayed | spared)  # fixed, not trained


def test_layer_decay_scales_by_depth() -> None:
    groups = param_groups(MAE(tiny_recipe()), 0.05, 0.5)
    scale = {name: g["lr_scale"] for g in groups for name in g["names"]}
    assert scale["encoder.patch_embed.proj.weight"] == 0.125
    assert scale["encoder.blocks.0.mlp.fc1.weight"] == 0.25
    assert scale["encoder.blocks.1.mlp.fc1.weight"] == 0.5
    assert scale["decoder.pred.weight"] == 1.0


def test_accumulation_equals_the_whole_batch() -> None:
    images = torch.randn(4, 3, 16, 16)
    gradients = []
    for split in (2, 4):
        torch.manual_seed(0)
        method = MAE(tiny_recipe()).double()
        optimizer = build_optimizer(method, tiny_recipe())
        batch = Batch.of_images(images.double())
        parts = [batch.rows(i, i + split) for i in range(0, 4, split)]
        train_step(
            method,
            optimizer,
            parts,
            len(parts),
            noise=lambda rows: Noise(0, 3, rows.index),
            precision=Precision("fp32", torch.device("cpu")),
        )
        gradients.append([p.grad for p in method.parameters() if p.requires_grad])
    for a, b in zip(*gradients, strict=True):
        assert torch.allclose(a, b, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", ["adamw", "sgd", "lars"])
def test_a_step_that_is_not_finite_changes_nothing(name: str) -> None:
    recipe = tiny_recipe(optim={"name": name, "lr": 1e-2})
    method = MAE(recipe)
    optimizer = build_optimizer(method, recipe)
    images = torch.randn(4, 3, 16, 16)
    one_step(method, optimizer, images)
    before = {key: value.clone() for key, value in method.state_dict().items()}
    moments = {key: value.clone() for key, value in optimizer_tensors(optimizer).items()}
    images[3] = float("nan")
    result = one_step(method, optimizer, images)
    assert result.skipped == 1
    assert all(torch.equal(before[key], value) for key, value in method.state_dict().items())
    after = optimizer_tensors(optimizer)
    assert all(torch.equal(moments[key], after[key]) for key in moments)


def test_optimizer_state_goes_out_and_in_by_name() -> None:
    recipe = tiny_recipe()
    images = torch.randn(4, 3, 16, 16)
    torch.manual_seed(0)
    first = MAE(recipe)
    optimizer = build_optimizer(first, recipe)
    one_step(first, optimizer, images)
    second = MAE(recipe)
    second.load_state_dict(first.state_dict())
    resumed = build_optimizer(second, recipe)
    load_optimizer(resumed, optimizer_tensors(optimizer))
    one_step(first, optimizer, images)
    one_step(second, resumed, images)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    with pytest.raises(UserError, match="nobody"):
        load_optimizer(resumed, {"nobody/exp_avg": torch.zeros(1)})


def test_lars_leaves_vectors_to_plain_momentum() -> None:
    layer = nn.Linear(2, 2)
    optimizer = LARS(layer.parameters(), lr=0.1)
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    layer.weight.grad, layer.bias.grad = torch.ones(2, 2), torch.ones(2)
    optimizer.step()
    assert torch.allclose(layer.bias, bias - 0.1)
    trust = 0.001 * weight.norm() / 2.0
    assert torch.allclose(layer.weight, weight - 0.1 * trust)


def test_meter_leaves_skipped_steps_out_and_survives_a_resume() -> None:
    def result(loss: float, skipped: float) -> StepResult:
        norm = torch.tensor(1.0)
        return StepResult(torch.tensor(loss), {}, norm, torch.tensor(skipped))

    meter = Meter()
    meter.add(result(1.0, 0.0))
    resumed = Meter()
    resumed.load_state_dict(meter.state_dict())
    for each in (meter, resumed):
        each.add(result(float("nan"), 1.0))
        each.add(result(3.0, 0.0))
        assert each.bad_in_a_row == 0
        assert each.read() == {"loss": 2.0, "grad_norm": 1.0, "skipped": 1.0}


def test_precision_refuses_what_would_fail() -> None:
    cpu = torch.device("cpu")
    assert Precision("auto", cpu).name == "fp32"
    with pytest.raises(UserError, match="fp16"):
        Precision("fp16", cpu)


# --- named groups and schedules -------------------------------------------------------------------


def test_a_named_group_has_a_rate_and_a_decay_of_its_own() -> None:
    class Grouped(MAE):
        def parameter_groups(self) -> dict[str, GroupSection]:
            keys = {"lr": 1e-4, "min_lr": 1e-5, "warmup_epochs": 0.0, "weight_decay": 0.1}
            return {
                "decoder.": GroupSection(**keys, decay_all=True),
                "decoder.pred.": GroupSection(),
            }

    document = tiny_recipe().model_dump()
    document["optim"] |= {"lr": 1e-3, "lr_per_256": None, "weight_decay_end": 0.4}
    document["optim"] |= {"weight_decay": 0.04}
    document["schedule"] |= {"kind": "cosine-ahead", "epochs": 10, "warmup_epochs": 5}
    recipe = type(tiny_recipe()).model_validate(document)
    optimizer = build_optimizer(Grouped(recipe), recipe)
    found = {name: group for group in optimizer.param_groups for name in group["names"]}
    bias, head = found["decoder.norm.bias"], found["decoder.pred.weight"]
    weight, norm = found["encoder.blocks.0.mlp.fc1.weight"], found["encoder.norm.weight"]
    set_schedules(optimizer, recipe, step=0, steps_per_epoch=10)
    assert weight["lr"] == pytest.approx(1e-3 / 50)
    assert bias["lr"] == pytest.approx(1e-4, rel=1e-2)
    assert head["lr"] == weight["lr"]
    set_schedules(optimizer, recipe, step=99, steps_per_epoch=10)
    assert weight["weight_decay"] == head["weight_decay"] == pytest.approx(0.4)
    assert bias["weight_decay"] == 0.1
    assert norm["weight_decay"] == 0.0
    assert found["decoder.pred.bias"]["weight_decay"] == 0.0
    assert bias["lr"] == pytest.approx(1e-5)
