"""data2vec 2.0: what is trained, one teacher pass for many masks, import and export, resume."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mimsuite import config
from mimsuite.batch import Batch
from mimsuite.checkpoints.initialise import initialise
from mimsuite.checkpoints.opened import Opened, open_model
from mimsuite.checkpoints.shapes import Hints
from mimsuite.errors import UserError
from mimsuite.export.to_timm import refuse_timm
from mimsuite.methods import build
from mimsuite.methods.base import Progress
from mimsuite.methods.data2vec2 import Data2Vec2
from mimsuite.noise import Noise
from mimsuite.train.estimate import estimate
from mimsuite.train.run import train

TINY = {
    "model.encoder.width": 32,
    "model.encoder.depth": 3,
    "model.encoder.heads": 2,
    "model.decoder.width": 32,
    "model.decoder.depth": 2,
    "model.decoder.groups": 4,
    "target.layers": 2,
}
RECIPE = "image/data2vec2-tiny-clipart"


def resolved(**changes: Any) -> Any:
    keys = TINY | {key.replace("__", "."): value for key, value in changes.items()}
    return config.with_overrides(config.load(RECIPE), keys, "test")


def data2vec2(**changes: Any) -> Data2Vec2:
    torch.manual_seed(0)
    method: Any = build(resolved(**changes).recipe)
    return method


def moved(method: Any) -> Any:
    """With weights that are not those of its first moment, the teacher's apart."""
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return method


def released(state: dict[str, Tensor], path: Path) -> Path:
    """A file as fairseq saves it: the teacher in an entry among the tensors."""
    lead = "_ema."
    teacher = {k.removeprefix(lead): t.clone() for k, t in state.items() if k.startswith(lead)}
    model: dict[str, Any] = {k: t.clone() for k, t in state.items() if not k.startswith(lead)}
    if teacher:
        model["_ema"] = teacher
    torch.save({"model": model, "args": None, "optimizer_history": [], "extra_state": {}}, path)
    return path


def batch_of(count: int = 3) -> Batch:
    return Batch.of_images(torch.randn(count, 3, 64, 64))


def step(method: Data2Vec2, batch: Batch) -> Any:
    noise = Noise(0, 0, torch.arange(len(batch)))
    context = method.prepare(batch, noise)
    return method(batch, method.mask(batch, noise, context), context)


def test_the_encoder_is_trained_and_the_teacher_follows_before_the_next_step() -> None:
    method = data2vec2().train()
    assert not method.teacher.training
    output = step(method, batch_of())
    output.loss.backward()
    trained = [p for p in method.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in trained)
    assert not any(p.requires_grad for p in method.teacher.parameters())
    assert output.prediction.shape == (3 * 4, 48, 32)
    before = method.teacher.module.norm_pre.bias.clone()
    with torch.no_grad():
        method.encoder.norm_pre.bias.add_(1.0)
        method.after_step(Progress(399, 1000, 5))
        torch.testing.assert_close(method.teacher.module.norm_pre.bias, before + 0.001)
        method.after_step(Progress(999, 1000, 5))  # the last update never reaches it
    torch.testing.assert_close(method.teacher.module.norm_pre.bias, before + 0.001)
    assert method.scheduled(Progress(0, 1000, 5)) == {"momentum": 0.98}
    assert method.scheduled(Progress(700, 1000, 5)) == {"momentum": pytest.approx(0.999)}


def test_a_step_is_the_mean_of_steps_with_one_mask_each() -> None:
    """Masks of an image share a pass of the teacher, and nothing else."""
    method, batch = moved(data2vec2()).train(), batch_of()
    passes: list[int] = []
    method.teacher.module.blocks[0].register_forward_hook(lambda *_: passes.append(1))
    noise = Noise(0, 0, torch.arange(3))
    context = method.prepare(batch, noise)
    masks = method.mask(batch, noise, context)
    together = method(batch, masks, context)
    alone = [method(batch, {name: mask}, context) for name, mask in masks.items()]
    assert passes == [1]
    torch.testing.assert_close(torch.stack([o.loss for o in alone]).mean(), together.loss)
    rows = together.prediction.unflatten(0, (3, 4))
    for number, output in enumerate(alone):
        torch.testing.assert_close(output.prediction, rows[:, number], rtol=1e-4, atol=1e-5)
    visible = torch.stack([mask.visible for mask in masks.values()])
    assert not torch.equal(visible[0], visible[1])


@pytest.mark.slow
def test_sixteen_masks_cost_less_than_sixteen_times_one(capsys: Any) -> None:
    costs = {}
    for clones in (1, 16):
        keys = {"method.clones": clones}
        recipe = config.with_overrides(config.load("image/data2vec2-vitb16-in1k"), keys, "test")
        costs[clones] = estimate(recipe.recipe).flops
    ratio = costs[16] / (16 * costs[1])
    with capsys.disabled():
        print(f"\nViT-B/16: 16 masks at once take {ratio:.2f} of the work of 16 single ones")
    assert 0.3 < ratio < 0.7


@pytest.mark.parametrize("rows", [None, 40])
def test_the_class_term_is_a_sum_over_rows(rows: int | None) -> None:
    method, batch = data2vec2(target__class_rows=rows), batch_of(4)
    whole = step(method, batch).terms["class_token"]
    half = step(method, Batch.of_images(batch.image[:2])).terms["class_token"]
    rest = whole / half
    assert (rest > 1.3) if rows is None else (0.7 < rest < 1.4)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"method__momentum": [0.9, 1.1]}, r"method\.momentum"),
        ({"mask__ratio": 0.999}, "leaves nothing to see"),
        ({"mask__ratio": 0.001, "mask__squares": "masked"}, "leaves nothing to predict"),
        ({"target__layers": 3}, "there are 2 blocks"),
        ({"model__encoder__prenet": 3}, "leaves none of depth 3"),
        ({"model__encoder__drop_path": 0.1}, "drop_path"),
        ({"model__decoder__groups": 5}, "groups 5 does not divide"),
        ({"method__clones": 0}, r"method\.clones"),
    ],
)
def test_settings_that_cannot_work_are_refused(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        resolved(**keys)


def test_a_released_file_is_read_whole(tmp_path: Path) -> None:
    method = moved(data2vec2())
    state = {**method.export_reference(), "modality_encoders.IMAGE.alibi_scale": torch.ones(1)}
    opened = open_model(released(state, tmp_path / "base.pt"), Hints(heads=2))
    for name, tensor in method.state_dict().items():
        assert torch.equal(opened.method.state_dict()[name], tensor), name
    notes = "\n".join(opened.notes)
    assert "not for commercial use" in notes
    assert "modality_encoders.IMAGE.alibi_scale" in notes
    assert "optimizer_history" in notes
    assert opened.has_decoder
    recipe: Any = opened.resolved.recipe
    assert (recipe.model.encoder.prenet, recipe.model.decoder.groups) == (1, 4)


def test_training_goes_on_from_a_released_file_with_or_without_teacher(tmp_path: Path) -> None:
    method, fresh = moved(data2vec2()), data2vec2()
    state = method.export_reference()
    initialise(fresh, released(state, tmp_path / "whole.pt"))
    for name, tensor in method.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], tensor), name
    alone = data2vec2()
    kept = {name: tensor for name, tensor in state.items() if not name.startswith("_ema.")}
    lines = initialise(alone, released(kept, tmp_path / "alone.pt"))
    assert "no teacher" in "\n".join(lines)
    for name, tensor in method.encoder.state_dict().items():
        assert torch.equal(alone.teacher.module.state_dict()[name], tensor), name


def test_a_released_file_is_finetuned_and_a_tuned_one_read(tmp_path: Path) -> None:
    method = moved(data2vec2())
    encoder = {**method.recipe.model.encoder.model_dump(), "drop_path": 0.1}
    keys = {f"model.encoder.{key}": value for key, value in encoder.items()}
    keys |= {"target.classes": 7, "augment.eval_resize": 72}
    tuned = config.with_overrides(
        config.load("image/data2vec2-vitb16-finetune-in1k"), keys, "test"
    ).recipe
    classifier: Any = build(tuned)
    initialise(classifier, released(method.export_reference(), tmp_path / "base.pt"))
    for name, tensor in method.encoder.state_dict().items():
        assert torch.equal(classifier.encoder.state_dict()[name], tensor), name
    path = released(moved(classifier).export_reference(), tmp_path / "tuned.pt")
    opened = open_model(path, Hints(heads=2))
    for name, tensor in classifier.state_dict().items():
        assert torch.equal(opened.method.state_dict()[name], tensor), name
    images = torch.randn(2, 3, 64, 64)
    other: Any = opened.method.eval()
    torch.testing.assert_close(other.logits(images), classifier.eval().logits(images))


def test_timm_with_such_a_block_computes_the_same() -> None:
    """timm has no block of this form, so there is no export; its names are ours all the same."""
    import timm

    class PostNorm(timm.models.vision_transformer.Block):  # type: ignore[misc]
        def forward(self, x: Tensor) -> Tensor:
            x = self.norm1(x + self.attn(x))
            return self.norm2(x + self.mlp(x))

    method = moved(data2vec2()).eval()
    model = timm.models.VisionTransformer(
        **{"img_size": 64, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2},
        **{"num_classes": 0, "global_pool": "avg", "fc_norm": False, "final_norm": False},
        **{"pre_norm": True, "no_embed_class": True, "block_fn": PostNorm},
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    ).eval()
    model.patch_embed.proj = nn.Conv2d(3, 32, 8, 8)  # with a bias, which pre_norm leaves out
    model.load_state_dict(method.encoder.state_dict(), strict=True)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        ours = method.encode(Batch.of_images(images))
        found = model.forward_features(images)
    torch.testing.assert_close(found, torch.cat([ours.cls, ours.tokens], 1), rtol=0, atol=1e-5)
    why = refuse_timm(Opened(method, resolved(), "test", None, True, []))
    assert why == "timm has no PostNormViT encoder"


def test_the_first_weights_are_as_published() -> None:
    method = data2vec2(model__encoder__width=128, model__encoder__heads=4)
    assert float(method.encoder.cls_token.detach().std()) == pytest.approx(1.0, abs=0.25)
    assert float(method.encoder.blocks[0].mlp.fc1.weight.std()) == pytest.approx(0.02, abs=1e-3)
    assert float(method.encoder.blocks[0].attn.qkv.bias.abs().max()) == 0
    assert float(method.decoder.proj.bias.abs().max()) > 0


def test_pictures_show_masks_and_both_features() -> None:
    method, batch = data2vec2().eval(), batch_of(2)
    noise = Noise(0, 0, torch.arange(2))
    with torch.no_grad():
        context = method.prepare(batch, noise)
        panels = method.panels(batch, method.mask(batch, noise, context), context)
    titles = [panel.title for panel in panels]
    assert titles[:2] == ["original", "masked"]
    assert sum("PCA" in title for title in titles) == 2


def test_a_run_logs_its_momentum_and_resumes_to_the_bit(tmp_path: Path) -> None:
    keys = {
        "data__limit": 64,
        "data__workers": 0,
        "train__global_batch": 16,
        "method__momentum_steps": 2,
        "schedule__epochs": 1,
        "schedule__warmup_epochs": 0,
        "log__every_steps": 1,
        "log__pictures_every_epochs": None,
        "log__signals_every_epochs": None,
        "checkpoint__every_steps": 2,
    }
    whole = train(resolved(**keys), tmp_path / "run", quiet=True)
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["momentum"] for row in rows] == pytest.approx([0.98, 0.9895, 0.999, 0.999])
    assert rows[0]["loss"] == pytest.approx(rows[0]["regression"] + rows[0]["class_token"])
    half = tmp_path / "run/checkpoints/step-00000002"
    again = train(resolved(**keys), tmp_path / "again", resume=str(half), quiet=True)
    for name, tensor in whole.method.state_dict().items():
        assert torch.equal(again.method.state_dict()[name], tensor), name
