"""CAPI: what is trained, balanced clusters, features, import and export, resume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mimsuite import config
from mimsuite.batch import Batch
from mimsuite.checkpoints.initialise import initialise
from mimsuite.checkpoints.opened import open_model
from mimsuite.checkpoints.shapes import Hints
from mimsuite.errors import UserError
from mimsuite.methods import build
from mimsuite.methods.base import Progress
from mimsuite.methods.capi import CAPI
from mimsuite.noise import Noise
from mimsuite.targets import balanced_assignments
from mimsuite.train.run import train

TINY = {
    "model.encoder.width": 32,
    "model.encoder.depth": 2,
    "model.encoder.heads": 2,
    "model.decoder.depth": 2,
    "target.clusters": 24,
}
RECIPE = "image/capi-tiny-clipart"
HINTS = Hints(heads=2, image_size=(64, 64))


def resolved(**changes: Any) -> Any:
    keys = TINY | {key.replace("__", "."): value for key, value in changes.items()}
    return config.with_overrides(config.load(RECIPE), keys, "test")


def capi(**changes: Any) -> CAPI:
    torch.manual_seed(0)
    method: Any = build(resolved(**changes).recipe)
    return method


def moved(method: Any) -> Any:
    """With weights that are not those of its first moment, the copies' apart."""
    with torch.no_grad():
        for name, parameter in method.named_parameters():
            if not name.endswith("freqs"):
                parameter.add_(torch.randn_like(parameter) * 0.05)
    return method


def released(method: CAPI, path: Path) -> Path:
    """A file as facebookresearch/capi releases it: the momentum copy alone."""
    lead = "student_ema."
    state = method.export_reference()
    torch.save({k.removeprefix(lead): t for k, t in state.items() if k.startswith(lead)}, path)
    return path


def step(method: CAPI, batch: Batch) -> Any:
    noise = Noise(0, 0, torch.arange(len(batch)))
    context = method.prepare(batch, noise)
    return method(batch, method.mask(batch, noise, context), context)


def batch_of(count: int = 4, side: int = 64) -> Batch:
    return Batch.of_images(torch.randn(count, 3, side, side))


def test_copies_follow_and_are_never_trained() -> None:
    method = capi(model__encoder__drop_path=0.3).train()
    assert not method.encoder.training
    assert not method.slow_decoder.training
    output = step(method, batch_of())
    output.loss.backward()
    trained = {n: p for n, p in method.named_parameters() if p.requires_grad}
    assert all(p.grad is not None for p in trained.values())
    assert {n.partition(".")[0] for n in trained} == {
        "student",
        "decoder",
        "prototypes",
        "clusters",
    }
    assert output.prediction.shape == (4, 20, 32)
    assert output.loss.item() == pytest.approx(
        float(output.terms["prediction"] + output.terms["clustering"])
    )
    before = method.slow_prototypes.weight_g.clone()
    with torch.no_grad():
        method.prototypes.weight_g.add_(1.0)
        method.after_step(Progress(14, 100, 5))  # the end of the warm-up of three epochs
    torch.testing.assert_close(method.slow_prototypes.weight_g, before + 0.02)


def test_nothing_reaches_the_encoder_from_the_clusters() -> None:
    method, batch = capi().train(), batch_of()
    noise = Noise(0, 0, torch.arange(4))
    context = method.prepare(batch, noise)
    assert not context.prepared["target"].requires_grad
    output = method(batch, method.mask(batch, noise, context), context)
    output.loss.backward()
    alone = method.clusters.layer.weight.grad.clone()
    method.zero_grad()
    with torch.no_grad():
        method.prototypes.weight_g.mul_(3.0)  # another loss of the predictions
    method(batch, method.mask(batch, noise, context), context).loss.backward()
    torch.testing.assert_close(method.clusters.layer.weight.grad, alone)


def test_momentum_starts_still_and_is_fastest_behind_the_warm_up() -> None:
    method = capi(method__momentum=[1.0, 0.9, 1.0])
    found = [method.scheduled(Progress(n, 120, 5))["momentum"] for n in range(120)]
    assert found[0] == 1.0
    assert min(found) == found[14] == found[15] == pytest.approx(0.9)
    assert found[-1] < 1.0


@pytest.mark.parametrize("balance", ["place", "batch"])
def test_clusters_are_used_alike_over_all_ranks(balance: str) -> None:
    method, scores = capi(target__balance=balance), torch.randn(8, 10, 24)
    whole = method.assign(scores)
    torch.testing.assert_close(whole.sum(-1), torch.ones(8, 10))
    halves = scores.chunk(2)
    sums: list[Tensor] = []
    log = lambda mine: sums.append(mine) or torch.cat([mine, mine])  # noqa: E731
    method.assign(halves[0], log)
    assert len(sums) == 4
    assert all(each.shape[-1] == 24 for each in sums)
    # By hand, with maxima and sums of both halves
    parts = [h.transpose(0, 1) if balance == "place" else h.flatten(0, 1)[None] for h in halves]
    top = torch.cat(parts, dim=1).div(0.06).amax(1, keepdim=True)
    shares = [(part / 0.06 - top + 50).exp() for part in parts]
    for _ in range(3):
        total = sum(each.sum(1, keepdim=True) for each in shares)
        shares = [each / (total + 1e-8) for each in shares]
        shares = [each / (each.sum(2, keepdim=True) + 1e-8) for each in shares]
    together = torch.cat(shares, dim=1)
    wanted = whole.transpose(0, 1) if balance == "place" else whole.flatten(0, 1)[None]
    torch.testing.assert_close(together, wanted, rtol=1e-5, atol=1e-6)


def test_many_iterations_use_every_cluster_alike() -> None:
    shares = balanced_assignments(torch.randn(1, 96, 8) * 4, 200, lambda tensor: tensor)
    torch.testing.assert_close(shares.sum(1), torch.full((1, 8), 12.0), rtol=1e-3, atol=0)


@pytest.mark.parametrize("count", [1, 5])
def test_drop_path_by_batch_and_by_sample(count: int) -> None:
    for by in ("batch", "sample"):
        method = capi(model__encoder__drop_path=0.4, model__encoder__drop_path_by=by).train()
        losses = [float(step(method, batch_of(count)).loss) for _ in range(2)]
        assert all(loss == loss for loss in losses)
    method.eval()
    batch = batch_of(count)
    assert float(step(method, batch).loss) == float(step(method, batch).loss)


def test_features_are_those_of_any_size() -> None:
    method = moved(capi()).eval()
    with torch.no_grad():
        found = method.encode(Batch.of_images(torch.randn(2, 3, 40, 72)), layers=(1,))
    assert found.cls.shape == (2, 1, 32)
    assert found.tokens.shape == (2, 45, 32)
    assert found.layers[1].shape == (2, 46, 32)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"method__momentum": [1.0, 1.1, 1.0]}, r"method\.momentum"),
        ({"method__momentum_warmup_epochs": 99}, "exceeds schedule.epochs 24"),
        ({"mask__predicted": 0.01}, "leaves nothing to predict"),
        ({"model__encoder__registers": 6}, "registers"),
        ({"model__encoder__heads": 16}, "rotary positions need heads"),
        ({"schedule__kind": "half-cosine"}, "cosine_share is of kind cosine-per-step"),
        ({"target__temperature": 0}, r"target\.temperature"),
    ],
)
def test_settings_that_cannot_work_are_refused(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        resolved(**keys)


def test_a_training_checkpoint_is_read_whole(tmp_path: Path) -> None:
    method = moved(capi())
    state = method.export_reference()
    extra = {"teacher.backbone.registers": torch.zeros(1, 4, 32)}
    torch.save({"model": {**state, **extra}, "iteration": 7}, tmp_path / "whole.pth")
    opened = open_model(tmp_path / "whole.pth", HINTS)
    for name, tensor in method.state_dict().items():
        assert torch.equal(opened.method.state_dict()[name], tensor), name
    assert "dropped: teacher.backbone.registers" in "\n".join(opened.notes)
    assert opened.has_decoder


def test_a_released_file_gives_features_and_a_start(tmp_path: Path) -> None:
    method = moved(capi()).eval()
    path = released(method, tmp_path / "capi_vitl14.pth")
    opened = open_model(path, HINTS)
    notes = "\n".join(opened.notes)
    assert "no trained network in it" in notes
    assert "no clusters in it" in notes
    assert not opened.has_decoder
    images = torch.randn(2, 3, 64, 64)
    other: Any = opened.method.eval()
    with torch.no_grad():
        ours, theirs = (m.encode(Batch.of_images(images)) for m in (method, other))
    assert torch.equal(ours.cls, theirs.cls)
    assert torch.equal(ours.tokens, theirs.tokens)
    fresh = capi()
    initialise(fresh, path)
    pairs = (("student", "encoder"), ("decoder", "slow_decoder"), ("prototypes", "slow_prototypes"))
    for trained, slow in pairs:
        for name, tensor in getattr(method, slow).state_dict().items():
            assert torch.equal(getattr(fresh, trained).state_dict()[name], tensor), name
            assert torch.equal(getattr(fresh, slow).state_dict()[name], tensor), name


def test_a_backbone_alone_is_read(tmp_path: Path) -> None:
    method, lead = moved(capi()).eval(), "student_ema.backbone."
    state = method.export_reference()
    alone = {k.removeprefix(lead): t for k, t in state.items() if k.startswith(lead)}
    torch.save(alone, tmp_path / "backbone.pth")
    other: Any = open_model(tmp_path / "backbone.pth", HINTS).method
    for name, tensor in method.encoder.state_dict().items():
        assert torch.equal(other.encoder.state_dict()[name], tensor), name


def test_pictures_show_masks_and_both_features() -> None:
    method, batch = capi().eval(), batch_of(2)
    noise = Noise(0, 0, torch.arange(2))
    with torch.no_grad():
        context = method.prepare(batch, noise)
        panels = method.panels(batch, method.mask(batch, noise, context), context)
    titles = [panel.title for panel in panels]
    assert titles[:2] == ["original", "masked"]
    assert sum("PCA" in title for title in titles) == 2


def test_a_classifier_takes_the_encoder(tmp_path: Path) -> None:
    method = moved(capi())
    encoder = {**method.recipe.model.encoder.model_dump(), "drop_path": 0.1}
    keys = {f"model.encoder.{key}": value for key, value in encoder.items()}
    keys |= {"target.classes": 7}
    tuned = config.with_overrides(config.load("image/capi-tiny-finetune"), keys, "test").recipe
    classifier: Any = build(tuned)
    torch.save({"model": method.export_reference()}, tmp_path / "whole.pth")
    initialise(classifier, tmp_path / "whole.pth")
    for name, tensor in method.encoder.state_dict().items():
        assert torch.equal(classifier.encoder.state_dict()[name], tensor), name


def test_a_run_logs_its_terms_and_resumes_to_the_bit(tmp_path: Path) -> None:
    keys = {
        "data__limit": 64,
        "data__workers": 0,
        "train__global_batch": 16,
        "schedule__epochs": 1,
        "schedule__warmup_epochs": 0.5,
        "log__every_steps": 1,
        "log__pictures_every_epochs": None,
        "log__signals_every_epochs": None,
        "checkpoint__every_steps": 2,
    }
    whole = train(resolved(**keys), tmp_path / "run", quiet=True)
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["momentum"] for row in rows[:3]] == pytest.approx([0.99, 0.98, 0.98])
    assert {"prediction", "clustering", "target_entropy", "usage_entropy"} <= rows[0].keys()
    half = tmp_path / "run/checkpoints/step-00000002"
    again = train(resolved(**keys), tmp_path / "again", resume=str(half), quiet=True)
    for name, tensor in whole.method.state_dict().items():
        assert torch.equal(again.method.state_dict()[name], tensor), name
