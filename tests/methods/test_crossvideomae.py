"""CrossVideoMAE: contrasts of clips with a second view and with a frame, beside VideoMAE."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mimsuite import config
from mimsuite.batch import Batch
from mimsuite.cli.main import main
from mimsuite.errors import UserError
from mimsuite.methods import build
from mimsuite.methods.base import Context
from mimsuite.models import Features
from mimsuite.noise import FixedNoise, Noise
from mimsuite.targets.contrast import nt_xent
from mimsuite.train.step import run_method

RECIPE = "video/crossvideomae-tiny-motion"
SIZES = {
    "model.encoder.frames": 8,
    "model.encoder.width": 24,
    "model.encoder.depth": 2,
    "model.decoder.width": 16,
    "target.teacher.weights": "random",
    "target.teacher.width": 16,
    "target.teacher.depth": 2,
    "method.projection": 12,
}


def recipe_of(**changes: Any) -> Any:
    keys = {key.replace("__", "."): value for key, value in changes.items()}
    return config.with_overrides(config.load(RECIPE), {**SIZES, **keys}, "test").recipe


def made(**changes: Any) -> Any:
    torch.manual_seed(0)
    return build(recipe_of(**changes)).train()


def clips(count: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(1)
    names = ("clip", "clip2")
    return Batch.of_views({n: torch.randn(count, 3, 8, 32, 32, generator=generator) for n in names})


def parts(method: Any, batch: Batch) -> tuple[Context, dict[str, Any]]:
    noise = Noise(0, 0, batch.index)
    ctx = method.prepare(batch, noise)
    return ctx, method.mask(batch, noise, ctx)


def looped(first: Tensor, second: Tensor, temperature: float) -> float:
    """NT-Xent by its formula, pair by pair."""
    both, count = torch.cat([first, second]).tolist(), len(first)

    def alike(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))

    total = 0.0
    for i, one in enumerate(both):
        heat = [math.exp(alike(one, other) / temperature) for other in both]
        total -= math.log(heat[(i + count) % (2 * count)] / (sum(heat) - heat[i]))
    return total / (2 * count)


def test_the_contrast_is_its_formula_and_its_gradient_is_right() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(5, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    for temperature in (0.1, 1.0):
        loss = float(nt_xent(first, second, temperature))
        assert loss == pytest.approx(looped(first, second, temperature), rel=1e-12)
        assert loss == pytest.approx(float(nt_xent(second, first, temperature)), rel=1e-12)
    pair = (first.requires_grad_(), second.requires_grad_())
    assert torch.autograd.gradcheck(lambda a, b: nt_xent(a, b, 0.5), pair)
    assert nt_xent(first[:1], second[:1], 0.1).detach() == 0.0
    assert nt_xent(first.bfloat16(), second.bfloat16(), 0.1).dtype == torch.float32


def test_the_loss_is_the_sum_of_its_parts() -> None:
    weights = {"intra_weight": 0.5, "cross_weight": 2.0, "distill_weight": 3.0}
    changes = {f"method__{name}": value for name, value in weights.items()}
    method, batch = made(**changes, method__rebuild_second=True), clips()
    output = run_method(method, batch, Noise(0, 0, batch.index))
    terms = output.terms
    assert set(terms) == {"pixels", "pixels2", "intra", "cross", "distill"}
    wanted = terms["pixels"] + terms["pixels2"] + 0.5 * terms["intra"] + 2 * terms["cross"]
    torch.testing.assert_close(output.loss.detach(), wanted + 3 * terms["distill"])
    mask = output.masks["clip"]
    hidden = method.target(method.encoder.tubelets(batch.views["clip"], mask.masked), 3)
    torch.testing.assert_close(terms["pixels"], (output.prediction - hidden).square().mean())


def test_contrasts_are_of_views_frames_and_the_image() -> None:
    method, batch = made(), clips()
    ctx, masks = parts(method, batch)
    frame = ctx.prepared["frame"]
    output = method(batch, masks, ctx)
    whole, near = [], []
    for view in ("clip", "clip2"):
        mask = masks[view]
        seen = method.encoder.tubelets(batch.views[view], mask.visible)
        tokens = method.encoder(seen, mask.visible).tokens
        rows = []
        for b in range(4):
            place = [v for v, token in enumerate(mask.visible[b]) if token // 16 == frame[b] // 2]
            rows.append(tokens[b, place].mean(0))
        for found, pooled in ((whole, tokens.mean(1)), (near, torch.stack(rows))):
            found.append(torch.nn.functional.normalize(method.project(pooled), dim=1))
    pictures = torch.stack([batch.views["clip"][b, :, frame[b]] for b in range(4)])
    image = method.teacher.features(pictures, ids=masks["frame"].visible).tokens.mean(1)
    image = method.project_frame(image)
    intra = [looped(*pair, 0.1) for pair in (whole, near)]
    cross = [looped((pair[0] + pair[1]) / 2, image, 0.1) for pair in (whole, near)]
    assert float(output.terms["intra"]) == pytest.approx(sum(intra) / 2, rel=1e-5)
    assert float(output.terms["cross"]) == pytest.approx(sum(cross) / 2, rel=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"method__cross_weight": 0.0},
        {"method__intra_weight": 0.0},
        {"method__distill_weight": 1.0, "method__cross_weight": 0.0},
        {"method__rebuild_second": True},
    ],
)
def test_every_trained_parameter_gets_a_gradient_and_the_image_branch_none(
    changes: dict[str, Any],
) -> None:
    method, batch = made(**changes), clips()
    before = [p.clone() for p in method.teacher._opened().parameters()]
    run_method(method, batch, Noise(0, 0, batch.index)).loss.backward()
    assert {n for n, p in method.named_parameters() if p.requires_grad and p.grad is None} == set()
    assert not any("teacher" in name for name in method.state_dict())
    after = list(method.teacher._opened().parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(p.grad is None and not p.requires_grad for p in after)


def test_without_a_cross_term_no_image_branch_is_asked_for() -> None:
    method = made(method__cross_weight=0.0, target__teacher__weights="/nowhere")
    output = run_method(method, batch := clips(), Noise(0, 0, batch.index))
    assert "cross" not in output.terms
    assert not any("teacher" in line for line in method.setup(None))
    with pytest.raises(UserError, match=r"target\.teacher\.weights"):
        made(target__teacher__weights="").setup(None)


def test_the_image_branch_sees_the_visible_patches_only() -> None:
    method, batch = made(), clips()
    ctx, masks = parts(method, batch)
    found = method.frame_tokens(batch, masks, ctx)
    assert found.shape == (4, 8, 16)
    hidden = masks["frame"].dense().view(4, 1, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3)
    other = batch.views["clip"].clone()
    rows = torch.arange(4)
    other[rows, :, ctx.prepared["frame"]] = other[rows, :, ctx.prepared["frame"]].where(
        ~hidden, 9.0
    )
    changed = Batch.of_views({**batch.views, "clip": other})
    assert torch.equal(method.frame_tokens(changed, masks, ctx), found)
    changed.views["clip"][rows, :, ctx.prepared["frame"]] += 1.0
    assert not torch.equal(method.frame_tokens(changed, masks, ctx), found)


def test_a_frame_without_a_visible_token_is_the_whole_clip() -> None:
    method = made()
    visible = torch.tensor([[3, 18, 20], [3, 40, 63]])  # 16 places a step, two frames each
    ctx = Context(FixedNoise({}), prepared={"frame": torch.tensor([3, 2])})
    tokens = torch.randn(2, 3, 24, generator=torch.Generator().manual_seed(0))
    mask: Any = type("Mask", (), {"visible": visible})
    found = method.at_frame(Features(tokens[:, :0], tokens), mask, ctx)
    torch.testing.assert_close(found[0], tokens[0, 1:].mean(0))
    torch.testing.assert_close(found[1], tokens[1].mean(0))


def test_frames_are_drawn_from_the_whole_clip() -> None:
    batch = Batch.of_views({"clip": torch.zeros(500, 1)})
    frame = made().prepare(batch, Noise(0, 0, batch.index)).prepared["frame"]
    assert frame.bincount(minlength=8).min() > 30
    assert frame.max() == 7


def test_distillation_is_of_tokens_that_both_branches_see() -> None:
    method, batch = made(method__distill_weight=1.0), clips()
    ctx, masks = parts(method, batch)
    output = method(batch, masks, ctx)
    mask = masks["clip"]
    seen = method.encoder.tubelets(batch.views["clip"], mask.visible)
    mapped = method.distill(method.encoder(seen, mask.visible).tokens)
    image = method.frame_tokens(batch, masks, ctx)
    errors = []
    for b in range(4):
        for v, token in enumerate(mask.visible[b].tolist()):
            for u, patch in enumerate(masks["frame"].visible[b].tolist()):
                if token == int(ctx.prepared["frame"][b]) // 2 * 16 + patch:
                    errors.append((mapped[b, v] - image[b, u]).square().mean())
    torch.testing.assert_close(output.terms["distill"], torch.stack(errors).mean().detach())


def test_two_views_have_masks_of_their_own() -> None:
    _, masks = parts(method := made(), batch := clips())
    assert not torch.equal(masks["clip"].visible, masks["clip2"].visible)
    _, again = parts(method, batch)
    assert torch.equal(masks["clip2"].visible, again["clip2"].visible)
    panels = method.panels(batch, masks, method.prepare(batch, Noise(0, 0, batch.index)))
    assert [panel.images.shape for panel in panels] == [(4, 3, 8, 32, 32)] * 3


@pytest.mark.parametrize(
    ("change", "culprit", "mend"),
    [
        ({"train__global_batch": 1}, "train.global_batch 1", "set 2 or more"),
        ({"train__micro_batch": 1}, "train.micro_batch 1", "set 2 or more"),
        ({"augment__repeats": 2}, "augment.repeats 2", "set 1"),
        ({"augment__second_view": None}, "augment.second_view", "two views"),
        ({"mask__decoder_ratio": 0.5}, "mask.decoder_ratio", "set 0"),
        ({"mask__frame_ratio": 0.99}, "mask.frame_ratio", "none of 16 visible"),
        (
            {"method__intra_weight": 0.0, "method__cross_weight": 0.0},
            "method.intra_weight",
            "method.name=videomae",
        ),
        ({"target__teacher__image_size": 64}, "target.teacher.image_size", "image_size=[32, 32]"),
        ({"target__teacher__kind": "clip"}, "target.teacher.kind", "run"),
        ({"method__temperature": 0.0}, "method.temperature", ""),
    ],
)
def test_what_cannot_work_is_refused_by_its_key(
    change: dict[str, Any], culprit: str, mend: str
) -> None:
    with pytest.raises(UserError) as caught:
        recipe_of(**change)
    assert culprit in str(caught.value)
    assert mend in str(caught.value)


def test_one_clip_at_a_time_is_refused_and_few_are_warned_of() -> None:
    method = made()
    with pytest.raises(UserError, match=r"train\.micro_batch"):
        method.check(clips(1))
    method.check(clips(2))
    assert len(method.setup(None)) == 2  # the image branch, and that it stands in
    few = made(train__global_batch=8).setup(None)
    assert "train.global_batch=8" in few[-1]


def test_it_trains_draws_and_is_tuned(tmp_path: Path) -> None:
    motion, run = str(tmp_path / "motion"), str(tmp_path / "run")
    assert main(["data", "synth", "video", motion, "--count", "24"]) == 0
    words = ["pretrain", RECIPE, "--smoke", "--data", motion, "--out", run]
    assert main(words) == 0
    assert (tmp_path / "run" / "DONE").exists()
    assert list((tmp_path / "run" / "images").glob("reconstruction-*"))
    out = str(tmp_path / "pictures")
    assert main(["reconstruct", run, "--input", motion, "--out", out, "--n", "2"]) == 0
    assert (tmp_path / "pictures" / "grid.png").exists()
    tuned = ["finetune", run, "--smoke", "--data", motion, "--out", str(tmp_path / "tuned")]
    assert main(tuned) == 0
    result = json.loads((tmp_path / "run" / "finetune.json").read_text())
    assert result["classes"] == 8
    assert result["accuracy"]["pretrained"] <= result["top5_accuracy"]["pretrained"] <= 1
    again = ["evaluate", str(tmp_path / "tuned" / "pretrained"), "--data", motion]
    assert main([*again, "--out", str(tmp_path / "again.json")]) == 0
    scored = json.loads((tmp_path / "again.json").read_text())
    assert scored["top5_accuracy"] == result["top5_accuracy"]["pretrained"]
