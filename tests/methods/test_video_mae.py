"""VideoMAE's fast path is the plain function; its loss is a ratio over the whole batch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mimsuite import config
from mimsuite.batch import Batch
from mimsuite.methods import build
from mimsuite.noise import FixedNoise, Noise
from mimsuite.train.step import run_method

TOOLS = Path(__file__).resolve().parents[2] / "tools"
sys.path[:0] = [str(TOOLS)]
from bench_video import skipped  # noqa: E402
from plain_video import PlainVideoMAE  # noqa: E402

SIZES = {
    "model.encoder.frames": 8,
    "model.encoder.image_size": 32,
    "model.encoder.width": 24,
    "model.encoder.depth": 2,
    "model.decoder.width": 16,
    "model.decoder.depth": 2,
    "target.normalize": True,
}


def recipe_of(name: str = "video/videomae2-tiny-motion", **changes: Any) -> Any:
    return config.with_overrides(config.load(name), {**SIZES, **changes}, "test").recipe


def made(recipe: Any) -> Any:
    torch.manual_seed(0)
    method = build(recipe).double()
    with torch.no_grad():  # so that biases, norm affines and tokens matter
        for parameter in method.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return method


def clips(count: int = 3) -> Batch:
    generator = torch.Generator().manual_seed(1)
    views = torch.randn(count, 3, 8, 32, 32, generator=generator, dtype=torch.float64)
    return Batch.of_views({"clip": views})


@pytest.mark.parametrize("decoder_ratio", [0.0, 0.25, 0.5, 0.75])
@pytest.mark.parametrize("kind", ["tube", "spacetime"])
def test_it_equals_the_plain_function(kind: str, decoder_ratio: float) -> None:
    recipe = recipe_of(**{"mask.kind": kind, "mask.decoder_ratio": decoder_ratio})
    method, batch = made(recipe), clips()
    output = run_method(method, batch, Noise(0, 0, batch.index))
    output.loss.backward()
    sections = (recipe.model.encoder.model_dump(), recipe.model.decoder.model_dump())
    plain = PlainVideoMAE(*sections).double()
    plain.load_state_dict(method.export_reference(), strict=True)
    mask = output.masks["clip"]
    hidden = mask.dense()
    loss, prediction = plain(batch.views["clip"], hidden, skipped(mask))
    loss.backward()
    torch.testing.assert_close(output.prediction, prediction, atol=1e-6, rtol=0)
    torch.testing.assert_close(output.loss, loss, atol=1e-7, rtol=0)
    theirs = dict(plain.named_parameters())
    published = dict(zip(method.state_dict(), method.export_reference(), strict=True))
    for name, parameter in method.named_parameters():
        (published,) = [
            n for n in theirs if type(method).import_reference({n: loss}) == {name: loss}
        ]
        error = (parameter.grad - theirs[published].grad).norm()
        assert error <= 1e-6 * theirs[published].grad.norm(), name


def test_the_loss_of_a_batch_is_the_ratio_of_its_sums() -> None:
    recipe = recipe_of(**{"mask.kind": "spacetime", "mask.decoder_ratio": 0.5})
    method, batch = made(recipe), clips(4)
    whole = run_method(method, batch, Noise(0, 0, batch.index))
    parts = [batch.rows(0, 1), batch.rows(1, 4)]
    done = [run_method(method, part, Noise(0, 0, part.index)) for part in parts]
    weight = sum(one.weight for one in done)
    assert whole.weight == weight
    torch.testing.assert_close(whole.loss, sum(one.loss * one.weight for one in done) / weight)


def test_targets_are_normalised_by_colour() -> None:
    method = made(recipe_of())
    vectors = torch.rand(2, 5, 2 * 8 * 8 * 3, dtype=torch.float64)
    target = method.target(vectors, 3).unflatten(2, (-1, 3))
    torch.testing.assert_close(target.mean(2), torch.zeros_like(target[:, :, 0]), atol=1e-9, rtol=0)
    assert (target.var(2) - 1).abs().max() < 1e-3
    again = method.target.denormalize(target.flatten(2), vectors, 3)
    torch.testing.assert_close(again, vectors, atol=1e-9, rtol=0)


def test_panels_show_the_clip_the_mask_and_the_visible_part_as_it_is() -> None:
    method, batch = made(recipe_of()), clips()
    noise = Noise(0, 0, batch.index)
    masks = method.mask(batch, noise, method.prepare(batch, noise))
    original, masked, rebuilt = method.panels(batch, masks, method.prepare(batch, noise))
    for panel in (original, masked, rebuilt):
        assert panel.images.shape == (3, 3, 8, 32, 32)
    seen = masked.images != 0
    assert seen.double().mean() < 0.5
    assert torch.equal(rebuilt.images[seen], original.images[seen])


def test_masks_that_do_not_fit_the_grid_are_refused() -> None:
    with pytest.raises(Exception, match="at least one must be visible"):
        recipe_of(**{"mask.ratio": 0.01})
    with pytest.raises(Exception, match="decode_visible"):
        recipe_of(**{"mask.decode_visible": False, "model.encoder.frames": 6})


def classifier(**changes: Any) -> Any:
    sizes = {k: v for k, v in SIZES.items() if "encoder" in k}
    keys = {**sizes, "target.classes": 4, **changes}
    return build(
        config.with_overrides(config.load("video/videomae-tiny-finetune"), keys, "t").recipe
    )


def test_mixup_treats_all_frames_alike() -> None:
    method = classifier(**{"target.cutmix": 1.0}).train()
    views = torch.arange(4.0)[:, None, None, None, None].expand(4, 3, 8, 32, 32).clone()
    batch = Batch.of_views({"clip": views}, torch.arange(4))
    made_clips = method.prepare(batch, Noise(0, 0, batch.index)).prepared["image"]
    assert made_clips.shape == views.shape
    assert (made_clips == made_clips[:, :1, :1]).all()
    assert not torch.equal(made_clips, views)


def test_dropout_before_the_head_is_keyed_and_only_in_training() -> None:
    method = classifier(**{"model.head_dropout": 0.5})
    views, half = torch.randn(2, 3, 8, 32, 32), torch.tensor([[0.9] * 12 + [0.1] * 12] * 2)
    torch.nn.init.normal_(method.head.weight)
    plain = method.eval().logits(views)
    dropped = method.train().logits(views, FixedNoise({"head_dropout": half}))
    with torch.no_grad():
        method.head.weight[:, 12:] = 0
    kept = method.eval().logits(views)
    torch.testing.assert_close(dropped, 2 * kept - method.head.bias)
    assert not torch.equal(plain, dropped)
