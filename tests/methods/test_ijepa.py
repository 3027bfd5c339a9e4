"""I-JEPA: what is trained, which encoder is read, import and export, ranks and resume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mimsuite import config
from mimsuite.batch import Batch
from mimsuite.checkpoints.initialise import initialise
from mimsuite.checkpoints.opened import Opened, open_model
from mimsuite.checkpoints.shapes import Hints
from mimsuite.errors import DivergedError, UserError
from mimsuite.export.to_timm import write_timm
from mimsuite.methods import build
from mimsuite.methods.base import Progress
from mimsuite.methods.ijepa import IJEPA
from mimsuite.noise import Noise
from mimsuite.train.run import train

TINY = {
    "model.encoder.width": 32,
    "model.encoder.depth": 2,
    "model.encoder.heads": 2,
    "model.predictor.width": 16,
    "model.predictor.depth": 1,
    "model.predictor.heads": 2,
}


def resolved(**changes: Any) -> Any:
    keys = TINY | {key.replace("__", "."): value for key, value in changes.items()}
    return config.with_overrides(config.load("image/ijepa-tiny-clipart"), keys, "test")


def ijepa(**changes: Any) -> IJEPA:
    torch.manual_seed(0)
    method: Any = build(resolved(**changes).recipe)
    return method


def released(method: IJEPA, path: Path) -> Path:
    """A file as facebookresearch/ijepa saves it."""
    networks: dict[str, Any] = {"encoder": {}, "predictor": {}, "target_encoder": {}}
    for name, tensor in method.export_reference().items():
        network, _, rest = name.partition(".")
        networks[network][f"module.{rest}"] = tensor.clone()
    others = {"opt": {"state": {}}, "scaler": None, "epoch": 3, "loss": 0.1, "lr": 1e-3}
    torch.save({**networks, **others}, path)
    return path


def moved(method: IJEPA) -> IJEPA:
    """With an encoder that is not its student any more."""
    with torch.no_grad():
        for parameter in method.encoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return method


def test_the_encoder_follows_and_is_never_trained() -> None:
    method = ijepa().train()
    assert not method.encoder.training
    assert not any(p.requires_grad for p in method.encoder.parameters())
    batch = Batch.of_images(torch.randn(3, 3, 64, 64))
    noise = Noise(0, 0, torch.arange(3))
    context = method.prepare(batch, noise)
    output = method(batch, method.mask(batch, noise, context), context)
    output.loss.backward()
    assert all(p.grad is not None for p in method.student.parameters() if p.requires_grad)
    assert {"target_deviation", "prediction_deviation"} == output.terms.keys()
    before = method.encoder.norm.bias.clone()
    with torch.no_grad():
        method.student.norm.bias.add_(1.0)
        method.after_step(Progress(0, 10, 5))
    torch.testing.assert_close(method.encoder.norm.bias, before + 0.02)


def test_a_momentum_above_one_is_refused() -> None:
    with pytest.raises(UserError, match=r"method\.momentum"):
        resolved(method__momentum=[0.9, 1.1])


def test_a_grid_too_small_is_refused() -> None:
    with pytest.raises(UserError, match="smallest square grid that works is"):
        resolved(model__encoder__image_size=32)


def test_a_released_file_is_read_whole(tmp_path: Path) -> None:
    method = moved(ijepa())
    opened = open_model(released(method, tmp_path / "IN1K-tiny.pth.tar"), Hints(heads=2))
    for name, tensor in method.state_dict().items():
        assert torch.equal(opened.method.state_dict()[name], tensor), name
    notes = "\n".join(opened.notes)
    assert "not for commercial use" in notes
    assert "dropped: opt, scaler, epoch, loss, lr" in notes
    assert opened.has_decoder
    assert opened.resolved.recipe.model.predictor.depth == 1


def test_training_goes_on_from_a_released_file_or_from_an_encoder_alone(tmp_path: Path) -> None:
    method, fresh = moved(ijepa()), ijepa()
    lines = initialise(fresh, released(method, tmp_path / "whole.pth.tar"))
    for name, tensor in method.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], tensor), name
    assert any("not for commercial use" in line for line in lines)
    torch.save(method.encoder.state_dict(), tmp_path / "encoder.pth")
    alone = ijepa()
    initialise(alone, tmp_path / "encoder.pth")
    for name, tensor in method.encoder.state_dict().items():
        assert torch.equal(alone.encoder.state_dict()[name], tensor)
        assert torch.equal(alone.student.state_dict()[name], tensor)


def test_another_depth_of_the_predictor_is_refused(tmp_path: Path) -> None:
    path = released(ijepa(model__predictor__depth=2), tmp_path / "deep.pth.tar")
    with pytest.raises(UserError, match=r"predictor\.depth=2"):
        initialise(ijepa(), path)


def test_timm_loads_the_encoder_strictly_and_computes_the_same(tmp_path: Path) -> None:
    import timm

    method = moved(ijepa()).eval()
    opened = Opened(method, resolved(), "test", None, True, [])
    lines = write_timm(opened, tmp_path / "encoder.safetensors")
    assert "class_token=False" in "\n".join(lines)
    model = timm.models.VisionTransformer(
        **{"img_size": 64, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2},
        **{"num_classes": 0, "class_token": False, "global_pool": "avg", "fc_norm": False},
    ).eval()
    model.load_state_dict(load_file(tmp_path / "encoder.safetensors"), strict=True)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        found, ours = model.forward_features(images), method.encode(Batch.of_images(images))
        torch.testing.assert_close(found, ours.tokens, rtol=0, atol=1e-5)
        torch.testing.assert_close(model(images), ours.pool("mean"), rtol=0, atol=1e-5)


def test_pictures_show_masks_and_both_features() -> None:
    method = ijepa().eval()
    batch, noise = Batch.of_images(torch.randn(2, 3, 64, 64)), Noise(0, 0, torch.arange(2))
    with torch.no_grad():
        context = method.prepare(batch, noise)
        panels = method.panels(batch, method.mask(batch, noise, context), context)
    titles = [panel.title for panel in panels]
    assert titles[:3] == ["original", "context", "targets"]
    assert sum("PCA" in title for title in titles) == 2


def test_a_run_logs_its_schedules_and_resumes_to_the_bit(tmp_path: Path) -> None:
    keys = {
        "data__limit": 64,
        "data__workers": 0,
        "train__global_batch": 16,
        "schedule__epochs": 1,
        "schedule__warmup_epochs": 0,
        "log__every_steps": 1,
        "log__pictures_every_epochs": None,
        "log__signals_every_epochs": None,
        "checkpoint__every_steps": 2,
    }
    whole = train(resolved(**keys), tmp_path / "run", quiet=True)
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["momentum"] for row in rows] == pytest.approx([0.98, 0.985, 0.99, 0.995])
    assert rows[-1]["weight_decay"] == pytest.approx(0.4)
    assert rows[0]["weight_decay"] < rows[1]["weight_decay"]
    half = tmp_path / "run/checkpoints/step-00000002"
    again = train(resolved(**keys), tmp_path / "again", resume=str(half), quiet=True)
    for name, tensor in whole.method.state_dict().items():
        assert torch.equal(again.method.state_dict()[name], tensor), name


def test_a_run_whose_features_collapse_says_so_or_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = IJEPA.after_step

    def collapse(self: IJEPA, progress: Progress) -> None:
        right(self, progress)
        if progress.step == 6:
            self.encoder.norm.weight.zero_()

    monkeypatch.setattr(IJEPA, "after_step", collapse)
    keys = {
        "data__limit": 64,
        "data__workers": 0,
        "train__global_batch": 8,
        "schedule__epochs": 2,
        "schedule__warmup_epochs": 0,
        "log__every_steps": 1,
        "log__pictures_every_epochs": None,
        "log__signals_every_epochs": None,
    }
    for collapse_key, wanted in (("warn", 16), ("stop", 8), ("off", 16)):
        out = tmp_path / collapse_key
        recipe = resolved(**keys, log__collapse=collapse_key)
        if collapse_key == "stop":
            with pytest.raises(DivergedError, match="collapse: target_deviation"):
                train(recipe, out, quiet=True)
        else:
            train(recipe, out, quiet=True)
        events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
        told = [event for event in events if event["event"] == "collapse"]
        assert [event["step"] for event in told] == ([] if collapse_key == "off" else [8])
        assert (out / f"checkpoints/step-{wanted:08d}").is_dir()
