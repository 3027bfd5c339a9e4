"""Files in the layouts of ConvMAE and CRATE: written by torch.save, read back strictly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import mimsuite
from mimsuite import config
from mimsuite.checkpoints import Hints, initialise, open_model
from mimsuite.errors import UserError
from mimsuite.methods import Method, build

HEADS = Hints(heads=4, decoder_heads=2)
CONV: dict[str, Any] = {
    "model.encoder.image_size": [32, 64],
    "model.encoder.conv_strides": [2, 4],
    "model.encoder.conv_width": [8, 16],
    "model.encoder.conv_depth": [1, 2],
    "model.encoder.conv_kernel": 3,
    "model.encoder.conv_mlp_ratio": [2.0, 3.0],
    "model.encoder.width": 32,
    "model.encoder.depth": 2,
    "model.encoder.heads": 4,
    "augment.eval_resize": None,
}
CRATE: dict[str, Any] = {
    "model.encoder.image_size": 32,
    "model.encoder.patch_size": 8,
    "model.encoder.width": 32,
    "model.encoder.depth": 2,
    "model.encoder.heads": 4,
    "augment.eval_resize": None,
}
DECODER = {"model.decoder.width": 64, "model.decoder.depth": 1, "model.decoder.heads": 2}


def made(recipe: str, *changes: dict[str, Any]) -> tuple[config.Resolved, Method]:
    """A tiny model in which every tensor is off its initial value."""
    resolved = config.load(recipe)
    for keys in changes:
        resolved = config.with_overrides(resolved, keys, "test")
    torch.manual_seed(0)
    method = build(resolved.recipe)
    with torch.no_grad():
        for name, parameter in method.named_parameters():
            if not name.endswith("pos_embed"):
                parameter += 0.05 * torch.randn_like(parameter)
    return resolved, method.eval()


def save(path: Path, state: dict[str, Tensor]) -> Path:
    torch.save({"model": state, "epoch": 3}, path)
    return path


def same(method: Method, other: Method) -> bool:
    ours, theirs = method.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


@pytest.mark.parametrize(
    ("recipe", "changes"),
    [
        ("image/mcmae-b-in1k", {**CONV, **DECODER}),
        ("image/mcmae-b-finetune-in1k", {**CONV, "target.classes": 5}),
        ("image/mcmae-b-linprobe-in1k", {**CONV, "target.classes": 5}),
        (
            "image/crate-mae-base-in1k",
            {**CRATE, "model.decoder.depth": 3, "model.decoder.heads": 2},
        ),
        ("image/crate-base-in1k", {**CRATE, "target.classes": 5}),
    ],
)
def test_round_trip(tmp_path: Path, recipe: str, changes: dict[str, Any]) -> None:
    resolved, method = made(recipe, changes)
    path = save(tmp_path / "published.pth", method.export_reference())
    opened = open_model(path, HEADS)
    assert same(opened.method, method)
    theirs, ours = opened.resolved.recipe.model, resolved.recipe.model
    assert theirs.encoder == ours.encoder
    assert getattr(theirs, "decoder", None) == getattr(ours, "decoder", None)
    assert opened.has_decoder == hasattr(ours, "decoder")
    assert any(note == "dropped: epoch" for note in opened.notes)


def test_load_needs_no_hints_at_published_widths(tmp_path: Path) -> None:
    keys = {"model.encoder.image_size": 64, "model.encoder.depth": 1}
    conv = {"model.encoder.width": 192, "model.encoder.heads": 3, "model.encoder.fusion": False}
    _, method = made("image/mcmae-b-in1k", {**CONV, **keys, **conv}, DECODER)
    bare = {
        name: tensor
        for name, tensor in method.export_reference().items()
        if not name.startswith(("decoder_", "mask_token"))
    }
    model = mimsuite.load(save(tmp_path / "convmae.pth", bare))
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(model.encode(images).tokens, _tokens(method, images))
    _, method = made("image/crate-mae-small-in1k", {**keys, "model.decoder.depth": 1})
    model = mimsuite.load(save(tmp_path / "crate.pth", method.export_reference()))
    assert model.resolved.recipe.model.encoder.heads == 12  # of width 576, where 64 is no divisor
    assert torch.equal(model.encode(images).tokens, _tokens(method, images))


def _tokens(method: Method, images: Tensor) -> Tensor:
    from mimsuite.batch import Batch

    with torch.no_grad():
        return method.encode(Batch.of_images(images)).tokens


def test_convmae_without_decoder_and_fusion(tmp_path: Path) -> None:
    """As it was released, with what was left of the decoder."""
    resolved, method = made("image/mcmae-b-in1k", CONV, DECODER)
    left = ("mask_token", "decoder_pos_embed")
    state = {
        name: tensor
        for name, tensor in method.export_reference().items()
        if name in left or not name.startswith(("decoder_", "stage"))
    }
    path = save(tmp_path / "convmae.pth", state)
    opened = open_model(path, HEADS)
    assert not opened.has_decoder
    assert not opened.resolved.recipe.model.encoder.fusion
    assert {f"dropped: {name}, without its decoder" for name in left} <= set(opened.notes)
    torch.manual_seed(5)
    target = build(resolved.recipe)
    lines = initialise(target, path)
    assert "decoder: fresh" in lines
    assert any("its fusion is fresh" in line for line in lines)
    name = "encoder.blocks.1.mlp.fc1.weight"
    assert torch.equal(target.get_parameter(name), method.get_parameter(name))
    assert not torch.equal(target.encoder.fusion[0].weight, method.encoder.fusion[0].weight)


@pytest.mark.parametrize(
    ("recipe", "changes", "tuning"),
    [
        ("image/mcmae-b-in1k", {**CONV, **DECODER}, "image/mcmae-b-finetune-in1k"),
        (
            "image/crate-mae-base-in1k",
            {**CRATE, "model.decoder.depth": 1, "model.decoder.heads": 2},
            "image/crate-mae-base-finetune-in1k",
        ),
    ],
)
def test_pretrained_encoder_into_a_classifier(
    tmp_path: Path, recipe: str, changes: dict[str, Any], tuning: str
) -> None:
    _, method = made(recipe, changes)
    path = save(tmp_path / "p.pth", method.export_reference())
    encoder = {k: v for k, v in changes.items() if k.startswith(("model.encoder", "augment"))}
    goal = config.with_overrides(config.load(tuning), {**encoder, "target.classes": 5}, "test")
    classifier = build(goal.recipe)
    lines = initialise(classifier, path)
    assert "head: fresh" in lines
    taken, given = classifier.encoder.state_dict(), method.encoder.state_dict()
    assert {n for n in given if n not in taken} == {
        n for n in given if n.startswith(("norm.", "fusion."))
    }
    assert all(torch.equal(taken[name], given[name]) for name in taken)


@pytest.mark.parametrize(
    ("recipe", "changes", "name", "fault"),
    [
        ("image/mcmae-b-in1k", {**CONV, **DECODER}, "blocks2.1.norm1.bias", "lacks 1 tensor: .*"),
        ("image/crate-base-in1k", CRATE, "transformer.layers.1.0.norm.bias", "lacks 1 tensor: .*"),
        ("image/mcmae-b-in1k", {**CONV, **DECODER}, "patch_embed2.proj.weight", "is missing"),
    ],
)
def test_a_missing_tensor_is_named(
    tmp_path: Path, recipe: str, changes: dict[str, Any], name: str, fault: str
) -> None:
    state = made(recipe, changes)[1].export_reference()
    del state[name]
    with pytest.raises(UserError, match=fault):
        open_model(save(tmp_path / "w.pth", state), HEADS)
