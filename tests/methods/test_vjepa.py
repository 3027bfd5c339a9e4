"""V-JEPA: what is trained, import and export, refusals, images, pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mimsuite import config
from mimsuite.batch import Batch
from mimsuite.checkpoints.initialise import initialise
from mimsuite.checkpoints.opened import open_model
from mimsuite.checkpoints.shapes import Hints
from mimsuite.errors import UserError
from mimsuite.masking import ClipBlockSampler
from mimsuite.methods import build
from mimsuite.methods.base import Progress
from mimsuite.methods.vjepa import VJEPA
from mimsuite.noise import Noise

CLIPS, IMAGES = "video/vjepa2-tiny-motion", "image/vjepa2-tiny-clipart"
TINY = {
    "model.encoder.width": 48,
    "model.encoder.depth": 2,
    "model.encoder.heads": 2,
    "model.predictor.width": 24,
    "model.predictor.depth": 1,
    "model.predictor.heads": 2,
}


def resolved(recipe: str = CLIPS, **changes: Any) -> Any:
    keys = TINY | {key.replace("__", "."): value for key, value in changes.items()}
    return config.with_overrides(config.load(recipe), keys, "test")


def vjepa(recipe: str = CLIPS, **changes: Any) -> VJEPA:
    torch.manual_seed(0)
    method: Any = build(resolved(recipe, **changes).recipe)
    with torch.no_grad():  # the encoder is not its student any more
        for parameter in method.encoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return method


def batch_of(method: VJEPA, samples: int = 2) -> Batch:
    view, shape = method.encoder.sample()
    shape = (shape[0], *shape[2:]) if view == "image" else shape
    return Batch.of_views({view: torch.randn(samples, *shape)})


def released(method: VJEPA, path: Path, tables: bool = False) -> Path:
    """A file as published code saves it."""
    networks: dict[str, Any] = {"encoder": {}, "predictor": {}, "target_encoder": {}}
    for name, tensor in method.export_reference().items():
        network, _, rest = name.partition(".")
        networks[network][rest] = tensor.clone()
    if tables:
        for network, name, width in (
            *(("encoder", "pos_embed", 48), ("target_encoder", "pos_embed", 48)),
            ("predictor", "predictor_pos_embed", 24),
        ):
            networks[network][f"module.backbone.{name}"] = torch.zeros(1, 512, width)
    torch.save({**networks, "opt": {"state": {}}, "scaler": None, "epoch": 3, "lr": 1e-3}, path)
    return path


@pytest.mark.parametrize("recipe", [CLIPS, IMAGES])
def test_the_encoder_follows_and_unused_mask_tokens_rest(recipe: str) -> None:
    method = vjepa(recipe, model__predictor__mask_tokens=3).train()
    assert not any(p.requires_grad for p in method.encoder.parameters())
    batch, noise = batch_of(method), Noise(0, 0, torch.arange(2))
    context = method.prepare(batch, noise)
    output = method(batch, method.mask(batch, noise, context), context)
    output.loss.backward()
    without = {name for name, p in method.named_parameters() if p.requires_grad and p.grad is None}
    assert not without
    assert {"predictor.mask_tokens.1", "predictor.mask_tokens.2"} == method.unused_parameters()
    assert {"target_deviation", "prediction_deviation"} == output.terms.keys()
    before = method.encoder.norm.bias.clone()
    with torch.no_grad():
        gap = method.student.norm.bias - method.encoder.norm.bias
        method.after_step(Progress(0, 10, 5))
    torch.testing.assert_close(method.encoder.norm.bias, before + 0.02 * gap)


def test_what_cannot_work_is_refused_in_one_line() -> None:
    small = {"model__encoder__image_size": 4}
    with pytest.raises(UserError, match=r"smallest square grid that works is 8 x \d x \d"):
        resolved(**small)
    with pytest.raises(UserError, match=r"nothing to see or nothing to predict"):
        resolved(mask__sets=[{"blocks": 1, "scale": [1.0, 1.0]}], mask__cut="batch")
    with pytest.raises(UserError, match=r"nothing to see or nothing to predict"):
        resolved(mask__sets=[{"blocks": 1, "scale": [0.01, 0.01]}], mask__cut="batch")
    with pytest.raises(UserError, match=r"method\.momentum"):
        resolved(method__momentum=[0.9, 1.1])
    with pytest.raises(UserError, match=r"heads of width 12"):
        resolved(model__encoder__heads=8)
    with pytest.raises(UserError, match=r"recipe\.modality"):
        resolved(
            model__encoder__frames=1, model__encoder__tubelet=1, model__encoder__image_size=128
        )


def test_a_length_that_no_draw_reaches_is_refused() -> None:
    recipe = resolved().recipe
    sets = (recipe.mask.sets[1].model_copy(update={"context_tokens": 400}),)
    sampler = ClipBlockSampler(recipe.mask.model_copy(update={"sets": sets}))
    with pytest.raises(UserError, match="left fewer to see or to predict than wanted"):
        sampler.sample(Noise(0, 0, torch.arange(1)), (8, 8, 8))


def test_masks_are_keyed_by_sample_and_partition_the_grid() -> None:
    sampler = ClipBlockSampler(resolved().recipe.mask)
    both = sampler.sample(Noise(0, 3, torch.arange(4)), (8, 8, 8))
    half = sampler.sample(Noise(0, 3, torch.arange(2, 4)), (8, 8, 8))
    assert list(both) == ["set1", "set2"]
    for name, mask in both.items():
        mask.check()
        assert torch.equal(mask.visible[2:], half[name].visible)
        assert mask.targets is not None
        assert half[name].targets is not None
        assert torch.equal(mask.targets[:, 2:], half[name].targets)


@pytest.mark.parametrize("tables", [False, True], ids=["no tables", "idle tables"])
def test_a_released_file_is_read_whole(tmp_path: Path, tables: bool) -> None:
    method = vjepa(model__predictor__mask_tokens=10)
    path = released(method, tmp_path / "vitl.pt", tables)
    opened = open_model(path, Hints(heads=2, decoder_heads=2, image_size=(32, 32)))
    for name, tensor in method.state_dict().items():
        assert torch.equal(opened.method.state_dict()[name], tensor), name
    notes = "\n".join(opened.notes)
    assert "dropped: " in notes
    assert "opt" in notes
    assert ("predictor_pos_embed" in notes) == tables
    assert opened.resolved.recipe.model.encoder.positions == "rotary"
    fresh = vjepa(model__predictor__mask_tokens=10)
    initialise(fresh, path)
    for name, tensor in method.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], tensor), name


def test_a_released_file_of_the_first_version_is_known(tmp_path: Path) -> None:
    keys = {
        "model__encoder__positions": "sin-cos",
        "model__predictor__mask_tokens": 2,
        "model__predictor__mask_token_by": "set",
        "model__scaled_start": False,
    }
    method = vjepa(**keys)
    opened = open_model(released(method, tmp_path / "vitl16.pth.tar"), Hints(heads=2))
    model = opened.resolved.recipe.model
    assert (model.encoder.positions, model.predictor.mask_token_by) == ("sin-cos", "set")
    assert model.encoder.image_size == 32
    assert "not for commercial use" in "\n".join(opened.notes)
    for name, tensor in method.state_dict().items():
        assert torch.equal(opened.method.state_dict()[name], tensor), name


@pytest.mark.parametrize("recipe", [CLIPS, IMAGES])
def test_pictures_show_context_and_both_features(recipe: str) -> None:
    method = vjepa(recipe).eval()
    batch, noise = batch_of(method), Noise(0, 0, torch.arange(2))
    with torch.no_grad():
        context = method.prepare(batch, noise)
        panels = method.panels(batch, method.mask(batch, noise, context), context)
    assert [panel.title for panel in panels][:2] == ["original", "context"]
    assert sum("PCA" in panel.title for panel in panels) == 2
    assert {panel.images.ndim for panel in panels} == {5 if recipe == CLIPS else 4}
