"""dVAE: what is learnt, that draws are keyed, and keys that do not fit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from mimsuite import config
from mimsuite.batch import Batch
from mimsuite.checkpoints import open_model
from mimsuite.config import Resolved
from mimsuite.errors import UserError
from mimsuite.methods import Method, build
from mimsuite.noise import Noise
from mimsuite.report.training_pictures import draw_panels
from mimsuite.train.run import train

TINY = {
    "model.encoder.image_size": [16, 24],
    "model.encoder.width": 8,
    "model.encoder.codes": 12,
    "model.decoder.width": 8,
    "model.decoder.code_width": 4,
}


def resolved(**changes: Any) -> Resolved:
    keys = {key.replace("__", "."): value for key, value in changes.items()}
    return config.with_overrides(config.load("image/dvae-clipart"), TINY | keys, "test")


def dvae(**changes: Any) -> Method:
    torch.manual_seed(0)
    return build(resolved(**changes).recipe)


def images(samples: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(1)
    return Batch.of_images(torch.randn(samples, 3, 16, 24, generator=generator))


def run(method: Method, batch: Batch, step: int = 0) -> Any:
    noise = Noise(0, step, batch.index)
    context = method.prepare(batch, noise)
    return method(batch, method.mask(batch, noise, context), context)


def test_every_parameter_learns_and_nothing_is_masked() -> None:
    method = dvae()
    output = run(method, images(), step=5)
    assert output.masks == {}
    assert output.prediction.shape == (4, 3, 16, 24)
    output.loss.backward()
    assert all(p.grad is not None for p in method.parameters())
    assert all(p.grad.abs().sum() > 0 for p in method.parameters())
    assert set(output.terms) == {"pixels", "divergence", "perplexity"}
    assert not any(term.requires_grad for term in output.terms.values())


def test_the_loss_is_its_terms_with_a_weight_that_rises() -> None:
    method = dvae(target__kl_weight=2.0, target__kl_steps=10)
    for step, weight in ((0, 0.0), (5, 1.0), (10, 2.0), (99, 2.0)):
        output = run(method, images(), step)
        total = output.terms["pixels"] + weight * output.terms["divergence"]
        torch.testing.assert_close(output.loss.detach(), total)


def test_draws_are_keyed_by_sample_and_step() -> None:
    method, batch = dvae().eval(), images()
    whole = run(method, batch).prediction
    parts = [run(method, batch.rows(first, first + 2)).prediction for first in (0, 2)]
    torch.testing.assert_close(whole, torch.cat(parts))
    assert not torch.allclose(whole, run(method, batch, step=1).prediction)


def test_at_a_low_temperature_the_prediction_is_the_drawing_of_its_codes() -> None:
    method = dvae(method__temperature=[1e-4, 1e-4]).eval()
    with torch.no_grad():
        method.encoder.scores.weight *= 1e4  # sure of its codes: the draw decides nothing
        rebuilt = run(method, images()).prediction
        drawn = method.decoder.draw(method.codes(images().image))
    torch.testing.assert_close(rebuilt, drawn, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("loss", ["mse", "l1", "smooth-l1"])
@pytest.mark.parametrize("patch", [2, 8])
def test_errors_of_pixels_and_strides(loss: str, patch: int) -> None:
    method = dvae(target__loss=loss, model__encoder__patch_size=patch)
    assert method.codes(images().image).shape == (4, 16 // patch, 24 // patch)
    assert torch.isfinite(run(method, images()).loss)


def test_features_of_blocks_are_what_probes_read() -> None:
    method = dvae(model__encoder__depth=2)
    found = method.encode(images(), layers=[1])
    assert found.cls.shape == (4, 0, 8)
    assert found.tokens.shape == found.layers[1].shape == (4, 6, 8)
    assert found.pool("mean").shape == (4, 8)
    names = {name: method.layer_id(name) for name, _ in method.named_parameters()}
    assert names["encoder.stem.0.weight"] == 0
    assert names["encoder.blocks.1.layers.1.weight"] == 2
    assert names["encoder.scores.weight"] == names["decoder.codebook"] == 3


def test_a_run_learns_resumes_and_draws(tmp_path: Path) -> None:
    keys = {
        "model.encoder.width": 32,
        "model.encoder.codes": 64,
        "model.decoder.width": 32,
        "data.limit": 64,
        "data.workers": 0,
        "train.global_batch": 16,
        "train.device": "cpu",
        "train.ema": 0.9,
        "optim.lr": 4e-3,
        "schedule.epochs": 20,
        "schedule.warmup_epochs": 0,
        "method.temperature_steps": 40,
        "log.pictures_every_epochs": None,
        "log.every_steps": 1,
        "checkpoint.every_steps": 30,
        "checkpoint.keep": 9,
    }
    recipe = resolved(**keys)
    train(recipe, tmp_path / "run", quiet=True)
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("pixels")
    pixels = [float(row.split(",")[column]) for row in rows[1:]]
    assert sum(pixels[-4:]) < 0.8 * sum(pixels[:4])
    opened = open_model(tmp_path / "run")
    state = opened.method.state_dict()

    shutil.rmtree(max((tmp_path / "run" / "checkpoints").glob("step-*")))  # back to step 60
    (tmp_path / "run" / "DONE").unlink()
    train(recipe, tmp_path / "run", resume="auto", quiet=True)
    again = open_model(tmp_path / "run").method.state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in state.items())

    assert opened.has_decoder
    panels = draw_panels(opened.method, images(), seed=0)
    assert [panel.title for panel in panels] == ["original", "rebuilt from its codes"]
    assert panels[1].images.shape == (4, 3, 16, 24)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.encoder.image_size": 60}, "patch_size 8 does not divide image_size 60 x 60"),
        ({"model.encoder.patch_size": 12}, r"model\.encoder\.patch_size"),
        ({"model.encoder.codes": 1}, "codes 1"),
        ({"target.kl_weight": -1.0}, r"target\.kl_weight"),
        ({"method.temperature": [1.0, 0.0]}, r"method\.temperature"),
        ({"mask.ratio": 0.5}, r"mask\.ratio: unknown key"),
    ],
)
def test_what_does_not_fit_is_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as fault:
        config.with_overrides(config.load("image/dvae-clipart"), changes, "test")
    assert "\n" not in str(fault.value).strip()
