from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from mimsuite import config
from mimsuite.batch import Batch
from mimsuite.checkpoints import Hints, open_model
from mimsuite.checkpoints.shapes import mlp_ratio
from mimsuite.errors import UserError
from mimsuite.methods import Method
from mimsuite.methods.classify import Classifier
from mimsuite.methods.mae import MAE
from mimsuite.noise import FixedNoise
from mimsuite.train import checkpoint

GOLDENS = Path(__file__).parents[1] / "goldens" / "image"
HEADS = Hints(heads=4, decoder_heads=4)


def same(method: Method, other: Method) -> bool:
    ours, theirs = method.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


def save(path: Path, state: dict[str, Tensor], **beside: Any) -> Path:
    torch.save({"model": state, **beside}, path)
    return path


# --- runs and checkpoints ---


def test_run_checkpoint_folder_and_file_inside(tmp_path: Path, mae: Any, run_of: Any) -> None:
    resolved, method = mae()
    run = run_of(tmp_path / "run", resolved, method)
    folder = run / "checkpoints" / "step-00000007"
    for path in (run, run / "checkpoints", folder, folder / "model.safetensors", str(run)):
        opened = open_model(path)
        assert same(opened.method, method)
        assert not opened.method.training
        assert (opened.step, opened.origin, opened.has_decoder) == (7, str(folder), True)
        assert opened.resolved.document == resolved.document


def test_classifier_run_has_no_decoder(tmp_path: Path, classifier: Any, run_of: Any) -> None:
    resolved, method = classifier()
    opened = open_model(run_of(tmp_path / "run", resolved, method))
    assert same(opened.method, method)
    assert not opened.has_decoder


def test_moving_average_is_preferred(tmp_path: Path, mae: Any, run_of: Any) -> None:
    resolved, method = mae()
    average = {name: tensor + 1 for name, tensor in method.state_dict().items()}
    opened = open_model(run_of(tmp_path / "run", resolved, method, ema=average))
    assert torch.equal(
        opened.method.state_dict()["encoder.cls_token"], average["encoder.cls_token"]
    )
    assert opened.notes == ["moving average of the weights used"]


def test_damaged_newest_falls_back_and_says_so(tmp_path: Path, mae: Any, run_of: Any) -> None:
    resolved, method = mae()
    run = run_of(tmp_path / "run", resolved, method, step=7)
    run_of(tmp_path / "run", resolved, method, step=9)
    bad = run / "checkpoints" / "step-00000009" / "model.safetensors"
    bad.write_bytes(bad.read_bytes()[:-1])
    opened = open_model(run)
    assert opened.step == 7
    assert "step-00000009" in opened.notes[0]
    with pytest.raises(UserError, match="damaged"):
        open_model(bad.parent)
    good = run / "checkpoints" / "step-00000007" / "state.json"
    good.write_text("{}")
    with pytest.raises(UserError, match=r"no sound checkpoint: step-00000009.*step-00000007"):
        open_model(run)


def test_paths_that_are_nothing(tmp_path: Path, mae: Any) -> None:
    with pytest.raises(UserError, match="no such run, checkpoint or weights file"):
        open_model(tmp_path / "none")
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").write_text(mae()[0].yaml())
    with pytest.raises(UserError, match="has no checkpoint yet"):
        open_model(run)
    photos = tmp_path / "photos"
    photos.mkdir()
    with pytest.raises(UserError, match=r"not a run.*found a folder with nothing"):
        open_model(photos)
    (photos / "cat.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match=r"not a run.*found a folder with cat\.jpg"):
        open_model(photos)


def test_weights_that_do_not_fit_their_recipe(tmp_path: Path, mae: Any, run_of: Any) -> None:
    resolved, method = mae()
    other = config.with_overrides(resolved, {"model.encoder.depth": 3}, "test")
    with pytest.raises(UserError, match=r"lacks 12 tensors: encoder\.blocks\.2"):
        open_model(run_of(tmp_path / "a", other, method))
    other = config.with_overrides(resolved, {"model.encoder.in_channels": 1}, "test")
    with pytest.raises(UserError, match=r"\(32, 3, 8, 8\), its recipe makes \(32, 1, 8, 8\)"):
        open_model(run_of(tmp_path / "b", other, method))


def test_opening_leaves_the_random_state_alone(tmp_path: Path, mae: Any, run_of: Any) -> None:
    run = run_of(tmp_path / "run", *mae())
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    open_model(run)
    assert torch.equal(torch.rand(3), expected)


# --- published files ---


def test_full_autoencoder(tmp_path: Path, mae: Any) -> None:
    _, method = mae(mask__ratio=0.5)
    facts = argparse.Namespace(norm_pix_loss=False, mask_ratio=0.5)
    path = save(tmp_path / "m.pth", method.export_reference(), optimizer={}, epoch=1, args=facts)
    opened = open_model(path, HEADS)
    assert isinstance(opened.method, MAE)
    assert same(opened.method, method)
    assert opened.has_decoder
    recipe = opened.resolved.recipe
    assert recipe.mask.ratio == 0.5
    assert not recipe.target.normalize
    assert opened.step is None
    assert any(note == "dropped: optimizer, epoch" for note in opened.notes)


@pytest.mark.parametrize(
    "changes",
    [
        {"model__encoder__image_size": [16, 64]},  # as many patches as 32 x 32
        {"model__encoder__image_size": [24, 40]},
        {"model__encoder__in_channels": 1, "augment__mean": [0.5], "augment__std": [0.5]},
        {"model__encoder__mlp_ratio": 2.0, "model__decoder__mlp_ratio": 3.0},
        {"model__encoder__patch_size": 4, "model__decoder__depth": 3},
    ],
)
def test_architecture_is_read_off_the_shapes(
    tmp_path: Path, mae: Any, changes: dict[str, Any]
) -> None:
    resolved, method = mae(**changes)
    opened = open_model(save(tmp_path / "m.pth", method.export_reference()), HEADS)
    assert opened.resolved.recipe.model == resolved.recipe.model
    assert same(opened.method, method)


def test_encoder_only_starts_a_fresh_decoder(tmp_path: Path, mae: Any) -> None:
    _, method = mae()
    encoder = {
        name: tensor
        for name, tensor in method.export_reference().items()
        if not name.startswith(("decoder_", "mask_token"))
    }
    path = save(tmp_path / "mae_pretrain_vit_tiny.pth", encoder)
    opened = open_model(path, HEADS)
    assert not opened.has_decoder
    assert opened.notes[-1] == "decoder: fresh, not trained"
    assert torch.equal(opened.method.encoder.norm.weight, method.encoder.norm.weight)
    assert same(opened.method, open_model(path, HEADS).method)  # fresh, yet the same every time


@pytest.mark.parametrize(("task", "pool"), [("finetune", "mean"), ("linprobe", "cls")])
def test_classifier(tmp_path: Path, classifier: Any, task: str, pool: str, images: Any) -> None:
    _, method = classifier(task)
    opened = open_model(save(tmp_path / "c.pth", method.export_reference()), HEADS)
    assert isinstance(opened.method, Classifier)
    assert same(opened.method, method)
    assert opened.resolved.recipe.model.pool == pool
    assert opened.resolved.recipe.target.classes == 5
    with torch.no_grad():
        assert torch.equal(opened.method.logits(images()), method.logits(images()))


def test_the_name_tells_plain_pixels(tmp_path: Path, mae: Any) -> None:
    state = mae()[1].export_reference()
    opened = open_model(save(tmp_path / "mae_visualize_vit_tiny.pth", state), HEADS)
    assert not opened.resolved.recipe.target.normalize
    opened = open_model(save(tmp_path / "mae_pretrain_vit_tiny_full.pth", state), HEADS)
    assert opened.resolved.recipe.target.normalize


@pytest.mark.parametrize(("width", "heads"), [(768, 12), (1024, 16), (1280, 16), (192, 3)])
def test_heads_by_width(tmp_path: Path, width: int, heads: int, mae: Any) -> None:
    _, method = mae(model__encoder__width=width, model__encoder__depth=1)
    hints = Hints(decoder_heads=4)
    opened = open_model(save(tmp_path / "m.pth", method.export_reference()), hints)
    assert opened.resolved.recipe.model.encoder.heads == heads
    assumed = [note for note in opened.notes if "assumed (width" in note]
    assert bool(assumed) == (width == 192)


def test_heads_that_nothing_tells(tmp_path: Path, mae: Any) -> None:
    path = save(tmp_path / "m.pth", mae()[1].export_reference())
    with pytest.raises(UserError, match="attention heads of encoder width 32: give --heads"):
        open_model(path)
    with pytest.raises(UserError, match="decoder width 16: give --decoder-heads"):
        open_model(path, Hints(heads=4))
    with pytest.raises(UserError, match="5 attention heads do not divide"):
        open_model(path, Hints(heads=5))


def _edited(state: dict[str, Tensor], edit: str) -> dict[str, Tensor]:
    state = dict(state)
    if edit == "unknown":
        state["blocks.0.ls1.gamma"] = torch.ones(32)
    elif edit == "missing":
        del state["blocks.1.mlp.fc2.bias"]
    elif edit == "hole":
        state = {n: t for n, t in state.items() if not n.startswith("blocks.0.norm")}
    elif edit == "far block":
        state["blocks.4000000000.norm1.weight"] = torch.ones(32)
    elif edit == "shape":
        state["norm.weight"] = torch.ones(31)
    elif edit == "half a decoder":
        del state["decoder_pred.weight"]
    elif edit == "oblong":
        state["patch_embed.proj.weight"] = torch.ones(32, 3, 8, 4)
    elif edit == "rank":
        state["pos_embed"] = torch.ones(17, 32)
    elif edit == "grid":
        state["pos_embed"] = torch.ones(1, 16, 32)
    elif edit == "head and decoder":
        state.update({"head.weight": torch.ones(5, 32), "head.bias": torch.ones(5)})
    return state


@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        ("unknown", r"1 tensor that no such model has: blocks\.0\.ls1\.gamma"),
        ("missing", r"lacks 1 tensor: .*blocks\.1\.mlp\.fc2\.bias"),
        ("hole", r"lacks 4 tensors: .*blocks\.0\.norm1\.weight"),
        ("far block", r"1 tensor that no such model has: blocks\.4000000000"),
        ("shape", r"norm\.weight has shape \(31,\), its recipe makes \(32,\)"),
        ("half a decoder", r"lacks 1 tensor: .*decoder.*pred\.weight"),
        ("oblong", "patches of 8 x 4 pixels"),
        ("rank", r"pos_embed has shape \(17, 32\), expected 3 axes"),
        ("grid", "15 trained positions, not a square number: give --image-size"),
        ("head and decoder", "20 tensors that no such model has: decoder_"),
    ],
)
def test_published_files_are_read_strictly(tmp_path: Path, mae: Any, edit: str, fault: str) -> None:
    state = _edited(mae()[1].export_reference(), edit)
    with pytest.raises(UserError, match=fault) as caught:
        open_model(save(tmp_path / "m.pth", state), HEADS)
    assert "m.pth" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_image_size_of_trained_positions(tmp_path: Path, classifier: Any) -> None:
    _, method = classifier(model__encoder__image_size=[16, 48])
    with torch.no_grad():
        method.encoder.pos_embed += 0.1
    path = save(tmp_path / "c.pth", method.export_reference())
    with pytest.raises(UserError, match="give --image-size"):
        open_model(path, HEADS)
    with pytest.raises(UserError, match="makes 16 patches of 8 pixels, pos_embed holds 12"):
        open_model(path, replace(HEADS, image_size=(32, 32)))
    opened = open_model(path, replace(HEADS, image_size=(16, 48)))
    assert same(opened.method, method)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("vit.encoder.layer.0.attention.attention.query.weight", "looks like a Hugging Face ViT"),
        ("layer4.0.conv1.weight", "looks like a ResNet"),
        ("something.else", r"found 1 tensors \(something\.else\) but no cls_token"),
    ],
)
def test_other_models_are_named(tmp_path: Path, name: str, what: str) -> None:
    with pytest.raises(UserError, match=what):
        open_model(save(tmp_path / "w.pth", {name: torch.ones(2)}))


@given(hidden=st.integers(1, 1 << 16), quarter=st.integers(1, 1 << 10))
def test_hidden_width_survives_its_ratio(hidden: int, quarter: int) -> None:
    width = 4 * quarter
    assert int(width * mlp_ratio(hidden, width)) == hidden


# --- parity ---


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_imported_reference_weights_give_the_reference_prediction(
    tmp_path: Path, suffix: str
) -> None:
    case = GOLDENS / "mae-a.json"
    tensors = load_file(GOLDENS / "mae-a.safetensors")
    hparams = json.loads(case.read_text())["hparams"]
    state = {n.removeprefix("state."): t for n, t in tensors.items() if n.startswith("state.")}
    path = tmp_path / f"published{suffix}"
    if suffix == ".pth":
        facts = argparse.Namespace(norm_pix_loss=True, mask_ratio=hparams["mask_ratio"])
        save(path, state, args=facts)
    else:
        save_file(state, path)
    hints = Hints(heads=hparams["num_heads"], decoder_heads=hparams["decoder_num_heads"])
    method: Any = open_model(path, hints).method
    batch, noise = Batch.of_images(tensors["imgs"]), FixedNoise({"mask": tensors["noise"]})
    ctx = method.prepare(batch, noise)
    masks = method.mask(batch, noise, ctx)
    with torch.no_grad():
        prediction = method.reconstruct(batch, masks, ctx)
        loss = method(batch, masks, ctx).loss
    assert torch.allclose(prediction, tensors["pred"], atol=1e-5, rtol=0)
    assert torch.allclose(loss, tensors["loss"], atol=1e-5, rtol=0)


def test_published_classifier_gives_the_reference_logits(tmp_path: Path) -> None:
    case = GOLDENS / "mae-vit-a-globalpool.safetensors"
    tensors = load_file(case)
    state = {n.removeprefix("state."): t for n, t in tensors.items() if n.startswith("state.")}
    method: Any = open_model(save(tmp_path / "c.pth", state), Hints(heads=4)).method
    with torch.no_grad():
        logits = method.logits(tensors["imgs"])
    assert torch.allclose(logits, tensors["logits"], atol=1e-5, rtol=0)


def test_newest_is_what_training_wrote(tmp_path: Path, mae: Callable[..., Any]) -> None:
    """Opening relies on the checkpoint's recipe, not on the run's config.yaml."""
    resolved, method = mae()
    root = tmp_path / "checkpoints"
    checkpoint.save(root, checkpoint.CheckpointState(3, resolved.document, method.state_dict()))
    assert open_model(tmp_path).step == 3
