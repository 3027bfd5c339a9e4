"""Folders that transformers wrote give transformers' own tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mimsuite import config
from mimsuite.batch import Batch
from mimsuite.checkpoints import Opened, open_model
from mimsuite.checkpoints.shapes import Hints
from mimsuite.cli.main import main
from mimsuite.errors import UserError
from mimsuite.export import export
from mimsuite.methods import build
from mimsuite.weights.files import read_weights_file
from tests import needs

transformers = needs.module("transformers")

CLOSE = {"atol": 1e-4, "rtol": 0.0}
SMALL = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 96,
    "image_size": 32,
    "patch_size": 8,
}
DECODER = {
    "decoder_hidden_size": 32,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 64,
}
CLIP = {**SMALL, "num_frames": 4, "tubelet_size": 2}


def saved(folder: Path, name: str, sizes: dict[str, Any], **options: Any) -> Any:
    """A model of transformers with weights that all matter, written as it writes them."""
    kinds = ("ViTMAE", "VideoMAE", "ViT", "IJepa", "VJEPA2")
    kind = next(kind for kind in kinds if name.startswith(kind))
    torch.manual_seed(0)
    model = getattr(transformers, name)(getattr(transformers, f"{kind}Config")(**sizes)).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "pos" not in key:
                parameter += 0.05 * torch.randn_like(parameter)
    model.save_pretrained(folder, **options)
    return model


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def tokens(opened: Opened, view: str, inputs: Tensor) -> Tensor:
    with torch.no_grad():
        found = opened.method.encoder.encode(Batch.of_views({view: inputs}))
    return torch.cat([found.cls, found.tokens], dim=1)


def of_images(model: nn.Module, images: Tensor, **options: Any) -> Tensor:
    body: Any = getattr(model, model.base_model_prefix, model)
    with torch.no_grad():
        return body(pixel_values=images, **options).last_hidden_state


IN_ORDER = {"noise": torch.arange(16.0)[None].expand(2, -1)}


@pytest.mark.parametrize(
    ("name", "sizes", "options"),
    [
        ("ViTMAEForPreTraining", {**SMALL, **DECODER, "mask_ratio": 0.0}, IN_ORDER),
        ("ViTMAEModel", {**SMALL, "mask_ratio": 0.0, "qkv_bias": False}, IN_ORDER),
        ("ViTModel", {**SMALL, "layer_norm_eps": 1e-3}, {}),
        ("ViTForImageClassification", {**SMALL, "num_labels": 5}, {}),
        ("ViTForMaskedImageModeling", {**SMALL, "encoder_stride": 8}, {}),
        ("IJepaModel", {**SMALL, "layer_norm_eps": 1e-6}, {}),
        ("IJepaForImageClassification", {**SMALL, "num_labels": 5}, {}),
    ],
)
def test_images(tmp_path: Path, name: str, sizes: dict[str, Any], options: dict[str, Any]) -> None:
    model, images = saved(tmp_path / "m", name, sizes), random(2, 3, 32, 32)
    opened = open_model(tmp_path / "m")
    torch.testing.assert_close(
        tokens(opened, "image", images), of_images(model, images, **options), **CLOSE
    )
    if name == "ViTForImageClassification":
        with torch.no_grad():
            torch.testing.assert_close(opened.method.logits(images), model(images).logits, **CLOSE)
    if name == "ViTForMaskedImageModeling":
        assert (
            "dropped: decoder.0.bias, decoder.0.weight, vit.embeddings.mask_token" in opened.notes
        )
    if name == "IJepaForImageClassification":
        assert "dropped: classifier.bias, classifier.weight" in opened.notes


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("VideoMAEForPreTraining", {**CLIP, **DECODER, "use_mean_pooling": False}),
        ("VideoMAEForPreTraining", {**CLIP, **DECODER}),
        ("VideoMAEModel", {**CLIP, "use_mean_pooling": False, "qv_bias": False}),
        ("VideoMAEModel", CLIP),
        ("VideoMAEForVideoClassification", {**CLIP, "num_labels": 5}),
    ],
)
def test_clips(tmp_path: Path, name: str, sizes: dict[str, Any]) -> None:
    model, clips = saved(tmp_path / "m", name, sizes), random(2, 4, 3, 32, 32)
    opened = open_model(tmp_path / "m")
    with torch.no_grad():
        expected = getattr(model, "videomae", model)(clips).last_hidden_state
    torch.testing.assert_close(tokens(opened, "clip", clips.transpose(1, 2)), expected, **CLOSE)
    assert opened.resolved.recipe.model.encoder.frames == 4


VJEPA2 = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "mlp_ratio": 2.0,
    "crop_size": 32,
    "patch_size": 8,
    "frames_per_clip": 4,
    "pred_hidden_size": 36,
    "pred_num_hidden_layers": 1,
    "pred_num_attention_heads": 2,
    "pred_num_mask_tokens": 3,
}


@pytest.mark.parametrize("name", ["VJEPA2Model", "VJEPA2ForVideoClassification"])
@pytest.mark.parametrize("configured", [True, False], ids=["config", "bare"])
def test_vjepa2_with_its_predictor(tmp_path: Path, name: str, configured: bool) -> None:
    """Tokens, and latents predicted of tokens 20 to 31 from the others."""
    model, clips = saved(tmp_path / "m", name, VJEPA2), random(2, 4, 3, 32, 32)
    hints = None
    if not configured:
        (tmp_path / "m" / "config.json").unlink()
        hints = Hints(heads=3, decoder_heads=2, image_size=32)
    opened = open_model(tmp_path / "m" / "model.safetensors", hints)
    encoder = opened.resolved.recipe.model.encoder
    assert encoder.frames == (4 if configured else 16)
    seen, asked = torch.arange(20).expand(2, -1), torch.arange(20, 32).expand(2, -1)
    with torch.no_grad():
        body: Any = getattr(model, "vjepa2", model)
        expected = body(clips, context_mask=[seen], target_mask=[asked])
        method: Any = opened.method
        found = method.encoder(
            method.encoder.tubelets(clips.transpose(1, 2)), grid=(2, 4, 4)
        ).tokens
        token = 1 % 3  # transformers takes the second mask token
        if configured:
            predicted = method.predictor(found[:, :20], seen, asked, token)
            torch.testing.assert_close(
                predicted, expected.predictor_output.last_hidden_state, **CLOSE
            )
    torch.testing.assert_close(found, expected.last_hidden_state, **CLOSE)
    assert all(
        torch.equal(a, b)
        for a, b in zip(method.encoder.parameters(), method.student.parameters(), strict=True)
    )


def test_vjepa2_predicts_in_transformers_as_here(tmp_path: Path, run_of: Any) -> None:
    keys = {"model.predictor.mask_tokens": 3, "model.encoder.depth": 2, "model.predictor.depth": 1}
    resolved = config.with_overrides(config.load("video/vjepa2-tiny-motion"), keys, "test")
    method: Any = build(resolved.recipe).eval()
    torch.nn.init.normal_(method.predictor.mask_tokens[0])
    export(open_model(run_of(tmp_path / "run", resolved, method)), "hf", tmp_path / "hf")
    model = transformers.VJEPA2Model.from_pretrained(tmp_path / "hf")
    clips = random(2, 16, 3, 32, 32)
    seen, asked = torch.arange(400).expand(2, -1), torch.arange(400, 512).expand(2, -1)
    with torch.no_grad():
        expected = model(clips, context_mask=[seen], target_mask=[asked])
        latents = method.encoder(method.encoder.tubelets(clips.transpose(1, 2))).tokens
        found = method.predictor(latents[:, :400], seen, asked)
    torch.testing.assert_close(found, expected.predictor_output.last_hidden_state, **CLOSE)


def test_a_model_in_parts(tmp_path: Path) -> None:
    sizes = {**SMALL, "mask_ratio": 0.0}
    model = saved(tmp_path / "m", "ViTMAEModel", sizes, max_shard_size="60KB")
    parts = sorted((tmp_path / "m").glob("model-*.safetensors"))
    assert len(parts) > 2
    images = random(2, 3, 32, 32)
    expected = of_images(model, images, **IN_ORDER)
    for path in (tmp_path / "m", tmp_path / "m" / "model.safetensors.index.json"):
        torch.testing.assert_close(tokens(open_model(path), "image", images), expected, **CLOSE)
    with pytest.raises(UserError, match="is a part of a model: give its folder"):
        open_model(parts[0])
    parts[0].unlink()
    with pytest.raises(UserError, match=r"names model-00001.*, which is not there"):
        open_model(tmp_path / "m")


def test_an_index_stays_in_its_folder(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "secret.safetensors")
    folder = tmp_path / "m"
    folder.mkdir()
    index = folder / "model.safetensors.index.json"
    for name in ("../secret.safetensors", str(tmp_path / "secret.safetensors"), 3):
        index.write_text(json.dumps({"weight_map": {"a": name}}))
        with pytest.raises(UserError, match="a file outside its folder"):
            read_weights_file(folder)
    index.write_text('{"weight_map": []}')
    with pytest.raises(UserError, match="no weight_map"):
        read_weights_file(folder)
    index.write_text("[" * 100_000)
    with pytest.raises(UserError, match="cannot be read"):
        read_weights_file(folder)


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("hidden_act", "quick_gelu", "hidden_act='quick_gelu' is not supported"),
        ("hidden_act", "gelu_new", "hidden_act='gelu_new' is not supported"),
        ("use_relative_position_bias", True, "use_relative_position_bias=True is not supported"),
        ("position_embedding_type", "rope", "position_embedding_type='rope' is not supported"),
        ("layer_scale_init_value", 0.1, "layer_scale_init_value=0.1 is not supported"),
        ("num_register_tokens", 4, "num_register_tokens=4 is not supported"),
        (
            "model_type",
            "beit",
            "model_type beit is not supported, only vit, vit_mae, ijepa, vjepa2, ",
        ),
        ("image_size", 64, "image_size=64 makes 64 patches, position_embeddings holds 16"),
        ("hidden_size", 64, "hidden_size=64, the tensors make it 48"),
        ("num_attention_heads", 5, "5 attention heads do not divide encoder width 48"),
    ],
)
def test_a_configuration_of_another_function(
    tmp_path: Path, key: str, value: Any, fault: str
) -> None:
    saved(tmp_path / "m", "ViTModel", SMALL)
    path = tmp_path / "m" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(UserError) as caught:
        open_model(tmp_path / "m")
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)


def test_keys_of_no_effect_are_named(tmp_path: Path) -> None:
    saved(tmp_path / "m", "ViTModel", SMALL)
    path = tmp_path / "m" / "config.json"
    more = {"hidden_dropout_prob": 0.1, "house_colour": "blue", "id2label": {"0": "cat"}}
    path.write_text(json.dumps({**json.loads(path.read_text()), **more}))
    notes = open_model(tmp_path / "m").notes
    assert "config.json: hidden_dropout_prob=0.1 is not used" in notes
    assert "config.json: house_colour=blue is not used" in notes
    assert "config.json: the names of the classes (id2label) are not used" in notes


def test_a_file_without_its_configuration(tmp_path: Path) -> None:
    saved(tmp_path / "m", "ViTModel", {**SMALL, "hidden_size": 192, "num_attention_heads": 3})
    (tmp_path / "m" / "config.json").unlink()
    opened = open_model(tmp_path / "m" / "model.safetensors")
    assert opened.resolved.recipe.model.encoder.heads == 3
    assert any("no config.json beside it" in note for note in opened.notes)


def test_features_of_photos_are_theirs(tmp_path: Path) -> None:
    """A folder in the layout of facebook/vit-mae-base, with its preprocessor."""
    model = saved(tmp_path / "m", "ViTMAEForPreTraining", {**SMALL, **DECODER, "mask_ratio": 0.0})
    mean, std = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]
    how = {"do_normalize": True, "do_resize": True, "resample": 2, "size": 32}
    (tmp_path / "m" / "preprocessor_config.json").write_text(
        json.dumps({**how, "image_mean": mean, "image_std": std})
    )
    (tmp_path / "photos").mkdir()
    draw = np.random.default_rng(0)
    photos = [draw.integers(0, 255, (32, 32, 3), dtype=np.uint8) for _ in range(2)]
    for number, photo in enumerate(photos):
        Image.fromarray(photo).save(tmp_path / "photos" / f"{number}.png")
    out = tmp_path / "f.safetensors"
    command = ["features", str(tmp_path / "m"), "--data", str(tmp_path / "photos")]
    assert main([*command, "--out", str(out), "--pool", "cls", "--device", "cpu"]) == 0
    images = torch.tensor(np.stack(photos)).permute(0, 3, 1, 2) / 255
    images = (images - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    expected = of_images(model, images, **IN_ORDER)[:, 0]
    torch.testing.assert_close(load_file(out)["features"], expected, **CLOSE)


@pytest.mark.parametrize("kind", ["autoencoder", "encoder", "classifier"])
def test_the_suite_reads_its_own_export(
    kind: str, tmp_path: Path, mae: Any, classifier: Any, run_of: Any, images: Any
) -> None:
    if kind == "classifier":
        resolved, method = classifier(model__pool="cls")
    else:
        square = 32 if kind == "autoencoder" else [32, 16]
        resolved, method = mae(model__encoder__image_size=square)
    size = (32, 16) if kind == "encoder" else (32, 32)
    opened = open_model(run_of(tmp_path / "run", resolved, method))
    export(opened, "hf", tmp_path / "hf")
    again = open_model(tmp_path / "hf")
    inputs = images(*size)
    torch.testing.assert_close(
        tokens(again, "image", inputs), tokens(opened, "image", inputs), **CLOSE
    )
    assert again.resolved.recipe.augment.mean == resolved.recipe.augment.mean


def test_features_of_clips_are_theirs(tmp_path: Path) -> None:
    """A folder in the layout of MCG-NJU/videomae-base; the clips are folders of frames."""
    sizes = {**CLIP, **DECODER, "use_mean_pooling": False}
    model = saved(tmp_path / "m", "VideoMAEForPreTraining", sizes)
    draw = np.random.default_rng(0)
    clips = draw.integers(0, 255, (2, 4, 32, 32, 3), dtype=np.uint8)
    for number, clip in enumerate(clips):
        (tmp_path / "clips" / f"c{number}").mkdir(parents=True)
        for at, frame in enumerate(clip):
            Image.fromarray(frame).save(tmp_path / "clips" / f"c{number}" / f"{at}.png")
    out = tmp_path / "f.safetensors"
    command = ["features", str(tmp_path / "m"), "--data", str(tmp_path / "clips")]
    command += ["--out", str(out), "--pool", "mean", "--device", "cpu"]
    assert main([*command, "augment.sampling=segments"]) == 0
    frames = torch.tensor(clips).permute(0, 1, 4, 2, 3) / 255  # (B, T, C, H, W)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    frames = (frames - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    with torch.no_grad():
        expected = model.videomae(frames).last_hidden_state.mean(dim=1)
    torch.testing.assert_close(load_file(out)["features"], expected, **CLOSE)
