from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.config.keys.encoders import ViTSection
from mimsuite.config.keys.shared import OptimSection, ScheduleSection, TrainSection
from mimsuite.errors import DataError, UserError
from mimsuite.methods.classify import (
    Classifier,
    ClassifierSection,
    ClassifyMethodSection,
    ClassifyRecipe,
    ClassTargetSection,
)
from mimsuite.noise import Noise
from mimsuite.tokens import resize_positions
from mimsuite.train.lars import LARS
from mimsuite.train.optim import param_groups

GOLDENS = Path(__file__).parents[1] / "goldens" / "image"
TINY = ViTSection(image_size=32, patch_size=8, width=32, depth=2, heads=4, trained_positions=True)


def recipe(
    encoder: ViTSection = TINY, model: Any = None, target: Any = None, train: Any = None
) -> ClassifyRecipe:
    return ClassifyRecipe(
        method=ClassifyMethodSection(name="classify"),
        model=ClassifierSection(
            **{"encoder": encoder, "pool": "mean", "head_init_std": 2e-5} | (model or {})
        ),
        target=ClassTargetSection(**{"classes": 10} | (target or {})),
        optim=OptimSection(lr=1e-3),
        schedule=ScheduleSection(epochs=1),
        train=TrainSection(**{"global_batch": 4} | (train or {})),
    )


def step(method: Classifier, batch: Batch, number: int = 0) -> Any:
    noise = Noise(0, number, batch.index)
    ctx = method.prepare(batch, noise)
    return method(batch, method.mask(batch, noise, ctx), ctx)


def images(count: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch.of_images(
        torch.randn(count, 3, 32, 32, generator=generator), torch.arange(count) % 10
    )


def golden(name: str) -> dict[str, Tensor]:
    return load_file(GOLDENS / f"{name}.safetensors")


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v.float() for k, v in tensors.items() if k.startswith(prefix)}


# --- equality with the published code ---


def test_fine_tuning_forward_and_gradients_equal_the_published_ones() -> None:
    tensors = golden("mae-vit-a-globalpool")
    method = Classifier(recipe())
    method.load_state_dict(Classifier.import_reference(part(tensors, "state.")))
    batch = Batch.of_images(tensors["imgs"], tensors["labels"])
    output = step(method, batch)
    output.loss.backward()
    bound = {"atol": 1e-5, "rtol": 0.0}
    torch.testing.assert_close(output.prediction, tensors["logits"], **bound)
    torch.testing.assert_close(output.loss, tensors["loss"], **bound)
    torch.testing.assert_close(method.pooled(method.encode(batch)), tensors["features"], **bound)
    resized = resize_positions(tensors["pos_embed_in"], (4, 4), (8, 8))
    torch.testing.assert_close(resized, tensors["pos_embed_interp"], **bound)
    gradients = {name: p.grad for name, p in method.named_parameters()}
    for name, expected in Classifier.import_reference(part(tensors, "grad.")).items():
        assert (gradients[name] - expected).norm() <= 1e-4 * expected.norm(), name


def test_probe_head_and_its_steps_equal_the_published_ones() -> None:
    tensors = golden("linprobe-a")
    encoder = TINY.model_copy(update={"width": 16})
    method = Classifier(
        recipe(encoder, {"pool": "cls", "freeze": True, "head": "bn-linear"}, {"classes": 5})
    )
    head = method.head
    head.load_state_dict({k.removeprefix("init."): v for k, v in tensors.items() if "init." in k})
    optimizer = LARS([p for p in method.parameters() if p.requires_grad], lr=0.4)
    bound = {"atol": 1e-6, "rtol": 1e-6}
    for i in range(3):
        logits = head(tensors["features"][i])
        loss = torch.nn.functional.cross_entropy(logits, tensors["labels"][i])
        torch.testing.assert_close(logits, tensors[f"step{i}.logits"], **bound)
        torch.testing.assert_close(loss, tensors[f"step{i}.loss"], **bound)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for name, value in head.state_dict().items():
        # Every `stepN.after` of the stored case holds the state behind the last step.
        torch.testing.assert_close(value, tensors[f"step2.after.{name}"], **bound)
    method.eval()
    torch.testing.assert_close(head(tensors["features"][0]), tensors["eval_logits"], **bound)


def test_layer_decay_groups_equal_the_published_ones() -> None:
    case = json.loads((GOLDENS / "layer-decay-groups.json").read_text())
    entries = [
        e for e in case["table"] if e["family"] == "mae" and e["args"].get("stage") == "finetune"
    ]
    assert entries
    sizes = {"vit_base_patch16": (768, 12, 12), "vit_large_patch16": (1024, 24, 16)}
    for entry in entries:
        width, depth, heads = sizes[entry["model"]]
        encoder = ViTSection(width=width, depth=depth, heads=heads, trained_positions=True)
        with torch.device("meta"):
            method = Classifier(recipe(encoder, {"pool": entry["args"]["pool"]}))
        groups = param_groups(method, entry["args"]["weight_decay"], entry["args"]["layer_decay"])
        found = {
            name.removeprefix("encoder."): (group["lr_scale"], group["weight_decay"])
            for group in groups
            for name in group["names"]
        }
        expected = entry["expected"]
        assert set(found) == set(expected["layer_id"])
        for name, (scale, decay) in found.items():
            ours = name if name.startswith(("head", "fc_norm")) else "encoder." + name
            assert method.layer_id(ours) == expected["layer_id"][name]
            assert scale == pytest.approx(expected["lr_scale"][name], rel=1e-9)
            assert decay == expected["weight_decay"][name]


# --- what it is ---


def test_mean_pooling_drops_the_encoder_norm_and_cls_keeps_it() -> None:
    mean = Classifier(recipe()).export_reference()
    cls = Classifier(recipe(model={"pool": "cls"})).export_reference()
    assert {"fc_norm.weight", "head.weight", "cls_token"} <= set(mean)
    assert "norm.weight" not in mean
    assert "norm.weight" in cls
    assert "fc_norm.weight" not in cls


def test_published_layout_goes_there_and_back() -> None:
    state = Classifier(recipe()).state_dict()
    back = Classifier.import_reference(Classifier(recipe()).export_reference())
    assert list(back) == list(state)


def test_positions_are_trained_only_where_asked() -> None:
    def trained(section: ViTSection) -> bool:
        return Classifier(recipe(section)).encoder.pos_embed.requires_grad

    assert trained(TINY)
    assert not trained(TINY.model_copy(update={"trained_positions": False}))


def test_frozen_encoder_neither_learns_nor_drops_paths() -> None:
    section = TINY.model_copy(update={"drop_path": 0.9})
    method = Classifier(recipe(section, {"pool": "cls", "freeze": True, "head": "bn-linear"}))
    method.train()
    assert not method.encoder.training
    assert method.head.training
    step(method, images()).loss.backward()
    names = {name for name, p in method.named_parameters() if p.grad is not None}
    assert names == {"head.1.weight", "head.1.bias"}
    grouped = {n for g in param_groups(method, 0.05) for n in g["names"]}
    assert grouped == names


def test_drop_path_needs_no_more_than_the_step_gives() -> None:
    section = TINY.model_copy(update={"drop_path": 0.5})
    method = Classifier(recipe(section)).train()
    one, two = step(method, images(), 1), step(method, images(), 2)
    again = step(method, images(), 1)
    assert torch.equal(one.prediction, again.prediction)
    with torch.no_grad():
        torch.nn.init.normal_(method.head.weight)
    assert not torch.equal(step(method, images(), 1).loss, step(method, images(), 2).loss)
    assert two.loss.isfinite()


def test_evaluation_neither_mixes_nor_smooths() -> None:
    method = Classifier(recipe(target={"mixup": 0.8, "cutmix": 1.0, "label_smoothing": 0.1}))
    batch = images()
    noise = Noise(0, 0, batch.index)
    assert not torch.equal(method.train().prepare(batch, noise).prepared["image"], batch.image)
    made = method.eval().prepare(batch, noise).prepared
    assert torch.equal(made["image"], batch.image)
    assert torch.equal(made["target"].argmax(1), batch.label)
    assert float(made["target"].max()) == 1.0


def test_accuracy_counts_the_sample_s_own_label() -> None:
    method = Classifier(recipe()).eval()
    batch = images(10)
    with torch.no_grad():
        method.head.bias[3] = 100.0
    assert float(step(method, batch).terms["accuracy"]) == pytest.approx(0.1)


@pytest.mark.parametrize(("label", "fault"), [(-1, "has no label"), (10, "has label 10")])
def test_wrong_label_names_the_sample(label: int, fault: str) -> None:
    batch = Batch.of_images(torch.zeros(2, 3, 32, 32), torch.tensor([0, label]))
    method = Classifier(recipe())
    with pytest.raises(DataError, match=f"sample 1 {fault}"):
        method.check(batch)
    assert not step(method, batch).loss.isfinite()  # never learnt silently


def test_unlabelled_source_and_unset_classes_are_named() -> None:
    with pytest.raises(DataError, match=r"data\.source"):
        step(Classifier(recipe()), Batch.of_images(torch.zeros(2, 3, 32, 32)))
    with pytest.raises(UserError, match=r"target\.classes"):
        Classifier(recipe(target={"classes": None}))


def test_odd_batches_with_mixing_are_refused_by_the_recipe() -> None:
    with pytest.raises(ValidationError, match="micro_batch 3 is odd"):
        recipe(target={"mixup": 0.8}, train={"global_batch": 6, "micro_batch": 3})
