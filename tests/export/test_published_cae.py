"""Checkpoints of CAE in both published layouts, and of its classifiers: read strictly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mimsuite import config
from mimsuite.checkpoints import Hints, open_model
from mimsuite.checkpoints.initialise import initialise
from mimsuite.errors import UserError
from mimsuite.methods import Method, build
from mimsuite.methods.cae import from_published, to_published

HEADS = Hints(heads=4, decoder_heads=4)
ENCODER = {
    "model.encoder.image_size": 32,
    "model.encoder.patch_size": 8,
    "model.encoder.width": 32,
    "model.encoder.depth": 2,
    "model.encoder.heads": 4,
    "augment.eval_resize": None,
}
TINY = {
    **ENCODER,
    "model.regressor.width": 32,
    "model.regressor.depth": 2,
    "model.regressor.heads": 4,
}
CAE_KEYS = {
    **TINY,
    "model.decoder.depth": 1,
    "target.tokenizer.weights": "random",
    "target.tokenizer.codes": 24,
    "augment.second_view.image_size": 32,
}
V2_KEYS = {
    **TINY,
    "target.teacher.weights": "random",
    "target.teacher.patch_size": 8,
    "target.teacher.projection": 12,
}


def made(recipe: str, keys: dict[str, Any]) -> Method:
    resolved = config.with_overrides(config.load(recipe), keys, "test")
    torch.manual_seed(0)
    method = build(resolved.recipe)
    with torch.no_grad():
        for name, parameter in method.named_parameters():
            if not name.endswith("pos_embed"):
                parameter += 0.05 * torch.randn_like(parameter)
        for buffer in method.buffers():
            if buffer.is_floating_point():
                buffer += torch.rand_like(buffer)
    return method.eval()


def first_layout(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """lxtGH's names of an Atten4Vis state."""
    renamed = {}
    for name, tensor in state.items():
        if name.startswith("alignment_encoder."):
            renamed[f"teacher.{name.removeprefix('alignment_encoder.')}"] = tensor
        elif name != "rd_pos_embed":
            renamed[to_published(from_published(name), first=True)] = tensor
    return renamed


def save(path: Path, state: dict[str, Tensor]) -> Path:
    torch.save({"model": state}, path)
    return path


def same(method: Method, other: Method) -> bool:
    ours, theirs = method.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


@pytest.mark.parametrize("first", [False, True])
def test_both_layouts_come_back_whole(tmp_path: Path, first: bool) -> None:
    method = made("image/cae-base-in1k", CAE_KEYS)
    state = method.export_reference()
    path = save(tmp_path / "cae.pth", first_layout(state) if first else state)
    opened = open_model(path, HEADS)
    assert same(opened.method, method)
    part = "teacher" if first else "alignment_encoder"
    copied = sum(name.startswith("encoder.") for name in state)
    assert f"dropped: {part}, its copy of the encoder ({copied} tensors)" in opened.notes
    assert any("pos_embed: computed" in note for note in opened.notes) == first
    recipe = opened.resolved.recipe
    assert (recipe.method.name, recipe.model.decoder.depth) == ("cae", 1)
    assert recipe.target.tokenizer.codes == 24


def test_other_widths_and_no_layer_scale(tmp_path: Path) -> None:
    keys = {
        **CAE_KEYS,
        "model.regressor.width": 48,
        "model.regressor.layer_scale": 0.0,
        "model.encoder.layer_scale": 0.0,
    }
    method = made("image/cae-base-in1k", keys)
    for layout in (dict, first_layout):
        path = save(tmp_path / "cae.pth", layout(method.export_reference()))
        assert same(open_model(path, HEADS).method, method)


def test_cae_v2_comes_back_whole(tmp_path: Path) -> None:
    method = made("image/caev2-base-in1k", V2_KEYS)
    opened = open_model(save(tmp_path / "v2.pth", method.export_reference()), HEADS)
    assert opened.resolved.recipe.method.name == "cae-v2"
    assert opened.resolved.recipe.target.teacher.projection == 12
    assert same(opened.method, method)


@pytest.mark.parametrize("fault", ["unknown", "missing"])
def test_a_name_too_many_or_too_few_is_refused(tmp_path: Path, fault: str) -> None:
    state = made("image/cae-base-in1k", CAE_KEYS).export_reference()
    if fault == "unknown":
        state["regresser.extra.weight"] = torch.zeros(3)
    else:
        del state["regresser.regressor_blocks.1.norm1_k.weight"]
    with pytest.raises(UserError, match="extra" if fault == "unknown" else "norm1_k"):
        open_model(save(tmp_path / "cae.pth", state), HEADS)


@pytest.mark.parametrize("task", ["finetune", "attentive", "linprobe"])
def test_classifiers_come_back_whole(tmp_path: Path, task: str) -> None:
    method: Any = made(f"image/cae-base-{task}-in1k", {**ENCODER, "target.classes": 5})
    state = {
        method.encoder.published.published(name): tensor
        for name, tensor in method.state_dict().items()
    }
    if task == "attentive":
        state["attentive_blocks.0.norm2_cross.weight"] = torch.ones(32)
    opened = open_model(save(tmp_path / f"{task}.pth", state), HEADS)
    assert same(opened.method, method)
    assert any("norm2_cross" in note for note in opened.notes) == (task == "attentive")
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(opened.method.logits(images), method.logits(images))


def test_fine_tuning_begins_where_it_should(tmp_path: Path) -> None:
    pretrained = made("image/cae-base-in1k", CAE_KEYS)
    path = save(tmp_path / "cae.pth", pretrained.export_reference())
    method: Any = made("image/cae-base-finetune-in1k", {**ENCODER, "target.classes": 5})
    for block in method.encoder.blocks:
        torch.nn.init.zeros_(block.attn.relative_position_bias_table)
    lines = initialise(method, path)
    state = pretrained.state_dict()
    assert torch.equal(method.fc_norm.weight, state["encoder.norm.weight"])
    assert torch.equal(method.fc_norm.bias, state["encoder.norm.bias"])
    assert torch.equal(method.encoder.blocks[1].gamma_2, state["encoder.blocks.1.gamma_2"])
    assert not method.encoder.blocks[0].attn.relative_position_bias_table.any()
    text = "\n".join(lines)
    assert "fc_norm.weight: begins as encoder.norm.weight" in text
    assert "its table of relative positions is fresh" in text
    assert "encoder.norm (" not in text  # nothing of it is left over


def test_pretraining_goes_on_from_published_weights(tmp_path: Path) -> None:
    pretrained = made("image/cae-base-in1k", CAE_KEYS)
    path = save(tmp_path / "cae.pth", first_layout(pretrained.export_reference()))
    method = made("image/cae-base-in1k", {**CAE_KEYS, "train.seed": 1})
    with torch.no_grad():
        for parameter in method.parameters():
            parameter += 1
    initialise(method, path)
    assert same(method, pretrained)
