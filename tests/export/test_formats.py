from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.checkpoints import Hints, Opened, open_model
from mimsuite.config import Resolved
from mimsuite.errors import UserError
from mimsuite.export import FORMATS, export
from mimsuite.methods import Method
from mimsuite.noise import FixedNoise
from tests import needs

SIZES = [
    {},
    {"model__encoder__image_size": [16, 40]},
    {
        "model__encoder__in_channels": 1,
        "augment__mean": [0.5],
        "augment__std": [0.5],
        "data__channels": "gray",
    },
    {"model__encoder__mlp_ratio": 2.0, "model__encoder__heads": 2},
]


def opened_of(pair: tuple[Resolved, Method], has_decoder: bool = True) -> Opened:
    resolved, method = pair
    return Opened(method, resolved, "test", 7, has_decoder, [])


def some(opened: Opened, batch: int = 2) -> Tensor:
    """Images that fit the model."""
    section = opened.resolved.recipe.model.encoder
    rows, columns = section.grid
    side = (rows * section.patch_size, columns * section.patch_size)
    generator = torch.Generator().manual_seed(4)
    return torch.randn(batch, section.in_channels, *side, generator=generator)


def features(opened: Opened, images: Tensor) -> Tensor:
    with torch.no_grad():
        found = opened.method.encode(Batch.of_images(images))
    return torch.cat([found.cls, found.tokens], dim=1)


# --- timm ---


def timm_model(path: Path) -> Any:
    """Built by the line in the file's header, as a user would."""
    from functools import partial

    with safe_open(path, framework="pt") as file:
        line = file.metadata()["constructor"]
    model = eval(line, {"timm": timm, "torch": torch, "partial": partial})
    model.load_state_dict(load_file(path), strict=True)
    return model.eval()


@pytest.mark.parametrize("changes", SIZES)
def test_timm_encoder(tmp_path: Path, mae: Any, changes: dict[str, Any]) -> None:
    opened = opened_of(mae(**changes))
    lines = export(opened, "timm", tmp_path / "e.safetensors")
    assert any("eps=1e-06" in line for line in lines)
    images = some(opened)
    with torch.no_grad():
        found = timm_model(tmp_path / "e.safetensors").forward_features(images)
    assert torch.allclose(found, features(opened, images), atol=1e-5, rtol=0)


@pytest.mark.parametrize("task", ["finetune", "linprobe"])
def test_timm_classifier(tmp_path: Path, classifier: Any, task: str) -> None:
    opened = opened_of(classifier(task), has_decoder=False)
    export(opened, "timm", tmp_path / "c.safetensors")
    images = some(opened)
    method: Any = opened.method
    with torch.no_grad():
        found = timm_model(tmp_path / "c.safetensors")(images)
        assert torch.allclose(found, method.logits(images), atol=1e-5, rtol=0)


def test_timm_registered_size(tmp_path: Path, mae: Any) -> None:
    """A full-width encoder goes into timm's own named model; its default eps is the right one."""
    opened = opened_of(mae(model__encoder__width=768, model__encoder__heads=12))
    export(opened, "timm", tmp_path / "e.safetensors")
    model = timm.create_model(
        "vit_base_patch16_224", num_classes=0, depth=2, img_size=32, patch_size=8
    )
    model.load_state_dict(load_file(tmp_path / "e.safetensors"), strict=True)
    images = some(opened)
    with torch.no_grad():
        found = model.eval().forward_features(images)
    assert torch.allclose(found, features(opened, images), atol=1e-5, rtol=0)


# --- Hugging Face ---


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "1")


def loaded(cls: Any, folder: Path, **options: Any) -> Any:
    model, report = cls.from_pretrained(folder, output_loading_info=True, **options)
    assert not report["missing_keys"]
    assert not report["mismatched_keys"]
    return model.eval(), report


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("changes", [SIZES[0], SIZES[2], SIZES[3]])
def test_hugging_face_autoencoder(tmp_path: Path, mae: Any, changes: dict[str, Any]) -> None:
    transformers = needs.module("transformers")
    opened = opened_of(mae(**changes))
    export(opened, "hf", tmp_path / "hf")
    model, report = loaded(transformers.ViTMAEForPreTraining, tmp_path / "hf")
    assert not report["unexpected_keys"]
    images = some(opened)
    noise = torch.rand(2, 16, generator=torch.Generator().manual_seed(6))
    batch, rows = Batch.of_images(images), FixedNoise({"mask": noise})
    method: Any = opened.method
    masks = method.mask(batch, rows, ctx := method.prepare(batch, rows))
    with torch.no_grad():
        found = model(images, noise=noise)
        expected = method.reconstruct(batch, masks, ctx)
        loss = method(batch, masks, ctx).loss
    assert torch.allclose(found.logits, expected, atol=1e-5, rtol=0)
    assert torch.allclose(found.loss, loss, atol=1e-5, rtol=0)

    encoder, _ = loaded(transformers.ViTMAEModel, tmp_path / "hf", mask_ratio=0.0)
    with torch.no_grad():
        order = torch.arange(16.0).expand(2, 16)
        found = encoder(images, noise=order).last_hidden_state
    assert torch.allclose(found, features(opened, images), atol=1e-5, rtol=0)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(("changes", "has_decoder"), [(SIZES[0], False), (SIZES[1], True)])
def test_hugging_face_encoder(
    tmp_path: Path, mae: Any, changes: dict[str, Any], has_decoder: bool
) -> None:
    transformers = needs.module("transformers")
    opened = opened_of(mae(**changes), has_decoder)
    lines = export(opened, "hf", tmp_path / "hf")
    assert any("square images only" in line for line in lines) == has_decoder
    model, report = loaded(transformers.ViTModel, tmp_path / "hf", add_pooling_layer=False)
    assert not report["unexpected_keys"]
    images = some(opened)
    with torch.no_grad():
        found = model(images).last_hidden_state
    assert torch.allclose(found, features(opened, images), atol=1e-5, rtol=0)


@pytest.mark.usefixtures("offline")
def test_hugging_face_classifier(tmp_path: Path, classifier: Any) -> None:
    transformers = needs.module("transformers")
    opened = opened_of(classifier("linprobe"), has_decoder=False)
    export(opened, "hf", tmp_path / "hf")
    model, report = loaded(transformers.ViTForImageClassification, tmp_path / "hf")
    assert not report["unexpected_keys"]
    images = some(opened)
    method: Any = opened.method
    with torch.no_grad():
        assert torch.allclose(model(images).logits, method.logits(images), atol=1e-5, rtol=0)


def test_hugging_face_has_no_mean_pooling(tmp_path: Path, classifier: Any) -> None:
    with pytest.raises(
        UserError, match="this model has timm, safetensors, onnx, reference, vitdet"
    ):
        export(opened_of(classifier(), has_decoder=False), "hf", tmp_path / "hf")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("offline")
def test_hugging_face_preprocessor(tmp_path: Path, mae: Any) -> None:
    transformers = needs.module("transformers")
    export(opened_of(mae()), "hf", tmp_path / "hf")
    processor = transformers.ViTImageProcessor.from_pretrained(tmp_path / "hf")
    pixels = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    found = processor(pixels, return_tensors="pt")["pixel_values"][0]
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = (pixels / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    assert torch.allclose(found, expected, atol=1e-5, rtol=0)


# --- our own ---


@pytest.mark.parametrize("changes", SIZES)
def test_own_file_round_trip(tmp_path: Path, mae: Any, changes: dict[str, Any]) -> None:
    opened = opened_of(mae(**changes))
    export(opened, "safetensors", tmp_path / "m.safetensors")
    again = open_model(tmp_path / "m.safetensors")
    assert again.resolved.document == opened.resolved.document
    assert (again.step, again.has_decoder) == (7, True)
    images = some(opened)
    assert torch.equal(features(again, images), features(opened, images))


def test_own_file_without_a_trained_decoder(tmp_path: Path, mae: Any) -> None:
    opened = opened_of(mae(), has_decoder=False)
    path = tmp_path / "m.safetensors"
    export(opened, "safetensors", path)
    assert not any(name.startswith("decoder.") for name in load_file(path))
    assert not open_model(path).has_decoder


def test_own_classifier_file(tmp_path: Path, classifier: Any) -> None:
    opened = opened_of(classifier("linprobe"), has_decoder=False)
    export(opened, "safetensors", tmp_path / "m.safetensors")
    again: Any = open_model(tmp_path / "m.safetensors").method
    method: Any = opened.method
    with torch.no_grad():
        assert torch.equal(again.logits(some(opened)), method.logits(some(opened)))


@pytest.mark.parametrize(
    ("header", "fault"),
    [
        ("{", "damaged mimsuite header"),
        ("[]", "damaged mimsuite header"),
        ('{"format": 1}', "damaged mimsuite header"),
        ('{"format": 1, "step": null, "has_decoder": 1, "recipe": 3}', "damaged mimsuite header"),
        ('{"format": 99}', "format 99, this version reads up to 1: update mimsuite"),
        (
            '{"format": 1, "step": 1, "has_decoder": true, "recipe": {"method": {"name": "x"}}}',
            "unknown method 'x'",
        ),
    ],
)
def test_own_file_with_a_wrong_header(tmp_path: Path, header: str, fault: str) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.ones(1)}, tmp_path / "m.safetensors", metadata={"mimsuite": header})
    with pytest.raises(UserError, match=fault):
        open_model(tmp_path / "m.safetensors")


# --- the published layout ---


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("has_decoder", [True, False])
def test_reference_layout(tmp_path: Path, mae: Any, suffix: str, has_decoder: bool) -> None:
    pair = mae(target__normalize=False, mask__ratio=0.6)
    opened = opened_of(pair, has_decoder)
    path = tmp_path / f"m{suffix}"
    export(opened, "reference", path)
    if suffix == ".pth":
        content = torch.load(path, weights_only=True)
        assert content["args"]["norm_pix_loss"] is False
        again = open_model(path)  # the heads are in it
        assert again.resolved.recipe.mask.ratio == (0.6 if has_decoder else 0.75)
    else:
        again = open_model(path, Hints(heads=4, decoder_heads=4))
    assert again.has_decoder == has_decoder
    images = some(opened)
    assert torch.equal(features(again, images), features(opened, images))


def test_reference_layout_of_a_trained_oblong_grid(tmp_path: Path, classifier: Any) -> None:
    size = {"model__encoder__image_size": [16, 48]}
    opened = opened_of(classifier(**size, augment__mean=[0.1, 0.2, 0.3]), has_decoder=False)
    with torch.no_grad():
        opened.method.encoder.pos_embed += 0.1  # no longer the table of any grid
    export(opened, "reference", tmp_path / "c.pth")
    again = open_model(tmp_path / "c.pth")
    assert torch.equal(features(again, some(opened)), features(opened, some(opened)))
    assert again.resolved.recipe.augment.mean == (0.1, 0.2, 0.3)


def test_reference_names_are_the_published_ones(tmp_path: Path, mae: Any) -> None:
    table = Path(__file__).parents[1] / "goldens" / "image" / "state-dict-keys.json"
    entries = {entry["id"]: entry for entry in json.loads(table.read_text())["table"]}
    expected = entries["mae_vit_base_patch16"]["expected"]["keys"]
    full = {
        "model.encoder.image_size": 224,
        "model.encoder.patch_size": 16,
        "model.encoder.width": 768,
        "model.encoder.depth": 12,
        "model.encoder.heads": 12,
        "model.decoder.width": 512,
        "model.decoder.depth": 8,
        "model.decoder.heads": 16,
    }
    with torch.device("meta"):
        from mimsuite import config
        from mimsuite.methods import build

        resolved = config.with_overrides(config.load("image/mae-vitb16-in1k"), full, "test")
        method = build(resolved.recipe)
    shapes = {name: list(tensor.shape) for name, tensor in method.export_reference().items()}
    assert shapes == expected


def test_method_without_a_published_layout(tmp_path: Path, mae: Any, monkeypatch: Any) -> None:
    opened = opened_of(mae())
    monkeypatch.setattr(type(opened.method), "names", None)
    with pytest.raises(UserError, match="no published key layout; this model has timm, hf"):
        export(opened, "reference", tmp_path / "m.pth")


# --- ONNX ---


@pytest.mark.parametrize("changes", [SIZES[1]])
def test_onnx(tmp_path: Path, mae: Any, changes: dict[str, Any]) -> None:
    runtime = needs.module("onnxruntime")
    opened = opened_of(mae(**changes))
    lines = export(opened, "onnx", tmp_path / "e.onnx")
    assert "onnxruntime agrees" in lines[-1]
    assert [entry.name for entry in tmp_path.iterdir()] == ["e.onnx"]
    session = runtime.InferenceSession(str(tmp_path / "e.onnx"))
    for batch in (1, 4):
        images = some(opened, batch)
        cls, tokens = session.run(None, {"image": images.numpy()})
        found = torch.cat([torch.from_numpy(cls), torch.from_numpy(tokens)], dim=1)
        assert torch.allclose(found, features(opened, images), atol=1e-5, rtol=0)


def test_onnx_without_its_extra(tmp_path: Path, mae: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"onnxruntime: pip install 'mimsuite\[onnx\]'"):
        export(opened_of(mae()), "onnx", tmp_path / "e.onnx")
    assert not list(tmp_path.iterdir())


# --- where it is written ---


@pytest.fixture
def written(tmp_path: Path, mae: Any) -> Callable[..., list[str]]:
    opened = opened_of(mae())

    def write(name: str, form: str = "safetensors", **options: Any) -> list[str]:
        return export(opened, form, tmp_path / name, **options)

    return write


def test_nothing_is_overwritten_without_force(
    tmp_path: Path, written: Callable[..., list[str]]
) -> None:
    written("a/b/m.safetensors")
    with pytest.raises(UserError, match="exists: give another --out, or --force"):
        written("a/b/m.safetensors")
    written("a/b/m.safetensors", force=True)
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "a/b/m.safetensors").stat().st_mode & 0o777 == 0o666 & ~mask
    written("folder", "hf")
    with pytest.raises(UserError, match="exists"):
        written("folder", "hf")
    written("folder", "hf", force=True)
    (tmp_path / "folder" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds other files \(notes\.txt\)"):
        written("folder", "hf", force=True)
    assert sorted(entry.name for entry in tmp_path.rglob(".*")) == []


@pytest.mark.parametrize(
    ("name", "form", "fault"),
    [
        ("m.pth", "safetensors", "is written as .safetensors"),
        ("m.bin", "reference", "is written as .pth or .safetensors"),
        ("m", "onnx", "is written as .onnx"),
        ("m.safetensors", "numpy", "expected one of timm, hf, safetensors, onnx, reference"),
        (".", "timm", "is a folder: give a file"),
        ("file/m.safetensors", "timm", "cannot write"),
    ],
)
def test_wrong_places(
    tmp_path: Path, written: Callable[..., list[str]], name: str, form: str, fault: str
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=fault):
        written(name, form)
    with pytest.raises(UserError, match="is a file"):
        written("file", "hf")


@pytest.mark.parametrize("form", ["timm", "safetensors", "reference"])
def test_a_failed_write_leaves_what_was_there(
    tmp_path: Path, mae: Any, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    path = tmp_path / "m.safetensors"
    path.write_text("old")

    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(FORMATS[form].write.__globals__, "save_file", full)
    with pytest.raises(UserError, match=r"cannot write .*No space left"):
        export(opened_of(mae()), form, path, force=True)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.safetensors"]
