"""CrossMAE: the plain function, what is decoded, the layers that are read, other methods' use."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mimsuite import config
from mimsuite.batch import Batch
from mimsuite.checkpoints import Hints, open_model
from mimsuite.errors import UserError
from mimsuite.methods import Method, build
from mimsuite.noise import FixedNoise

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS.parent / "tools"), str(TESTS)]
from golden import build as golden_build  # noqa: E402
from golden import run  # noqa: E402
from golden_cases import stored, tensors  # noqa: E402
from plain_models import cross_decoder  # noqa: E402

SMALL = {
    "model.encoder.image_size": 16,
    "model.encoder.patch_size": 4,
    "model.encoder.width": 16,
    "model.encoder.depth": 3,
    "model.encoder.heads": 2,
    "model.decoder.width": 8,
    "model.decoder.depth": 2,
    "model.decoder.heads": 2,
}


def made(changes: dict[str, Any] | None = None, recipe: str = "image/crossmae-tiny-clipart") -> Any:
    resolved = config.with_overrides(config.load(recipe), SMALL | (changes or {}), "test")
    torch.manual_seed(0)
    method = build(resolved.recipe).double().train()
    with torch.no_grad():
        for parameter in method.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn_like(parameter)
    return method


def step(method: Method) -> tuple[Any, Batch, Any]:
    generator = torch.Generator().manual_seed(1)
    batch = Batch.of_images(torch.randn(2, 3, 16, 16, generator=generator).double())
    noise = FixedNoise({"mask": torch.rand(2, 16, generator=generator)})
    context = method.prepare(batch, noise)
    masks = method.mask(batch, noise, context)
    return method(batch, masks, context), batch, masks["image"]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model.decoder.self_attention": True},
        {"model.decoder.layers": [1, 3]},
        {"model.encoder.final_norm": True, "mask.decode_ratio": 0.5},
    ],
)
def test_it_is_the_plain_function(changes: dict[str, Any]) -> None:
    method = made(changes)
    output, batch, mask = step(method)
    patches = method.encoder.patches(batch.image, mask.visible)
    with torch.no_grad():
        features = method.encoder(patches, mask.visible, layers=range(3))
        layers = dict(features.layers) | {3: torch.cat([features.cls, features.tokens], 1)}
        chosen = changes.get("model.decoder.layers", [0, 1, 2, 3])
        expected = cross_decoder(
            method.export_reference(), [layers[n] for n in chosen], mask.decoded, heads=2, eps=1e-6
        )
    torch.testing.assert_close(output.prediction, expected, atol=1e-10, rtol=1e-10)
    target = method.target(method.encoder.patches(batch.image, mask.decoded))
    torch.testing.assert_close(output.loss, (expected - target).square().mean())


def test_dropped_patches_are_neither_seen_nor_scored() -> None:
    method = made()
    output, batch, mask = step(method)
    assert (mask.visible.shape[1], mask.decoded.shape[1]) == (4, 4)
    assert torch.equal(mask.decoded, mask.decoded.sort(dim=1).values)
    used = torch.cat([mask.visible, mask.decoded], dim=1)
    dropped = ~torch.zeros(2, 16, dtype=torch.bool).scatter(1, used, True)
    pixels = dropped.view(2, 1, 4, 1, 4, 1).expand(-1, 3, -1, 4, -1, 4).reshape(2, 3, 16, 16)
    changed = Batch.of_images(torch.where(pixels, 9.0, batch.image))
    again = method(changed, {"image": mask}, method.prepare(changed, FixedNoise({})))
    assert torch.equal(again.loss, output.loss)


def test_each_prediction_is_for_itself() -> None:
    """Without self-attention a patch is predicted alike whatever else is decoded."""
    few, all_ = made(), made({"mask.decode_ratio": 0.75})
    all_.load_state_dict(few.state_dict())
    one, _, mask = step(few)
    other, _, wide = step(all_)
    rows = (mask.decoded.unsqueeze(2) == wide.decoded.unsqueeze(1)).int().argmax(2)
    picked = other.prediction.gather(1, rows.unsqueeze(2).expand_as(one.prediction))
    torch.testing.assert_close(one.prediction, picked)


def test_blocks_that_nobody_reads_do_not_train() -> None:
    method = made({"model.decoder.layers": [0, 1]})
    step(method)[0].loss.backward()
    for name, parameter in method.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
    assert any(name.startswith("encoder.blocks.1.") for name in method.unused_parameters())
    assert not any(name.startswith("encoder.blocks.0.") for name in method.unused_parameters())
    assert not made().unused_parameters()


@pytest.mark.parametrize("recipe", ["image/mae-tiny-clipart", "image/convmae-tiny-clipart"])
@pytest.mark.parametrize("ratio", [None, 0.25])
def test_other_methods_take_the_decoder(recipe: str, ratio: float | None) -> None:
    keys = {"model.decoder.kind": "cross", "mask.decode_ratio": ratio}
    if "convmae" in recipe:
        keys |= {"model.encoder.conv_strides": [2, 2], "model.encoder.conv_width": [8, 8]}
    method = made(keys, recipe)
    output = step(method)[0]
    output.loss.backward()
    assert output.prediction.shape[1] == (4 if ratio else 12)
    unread = [n for n, p in method.named_parameters() if p.requires_grad and p.grad is None]
    assert not unread
    published = method.export_reference()
    assert type(method).import_reference(published).keys() == method.state_dict().keys()


def test_maes_own_decoder_takes_a_part_of_the_masked_patches() -> None:
    method = made({"mask.decode_ratio": 0.25}, "image/mae-tiny-clipart")
    output, _, mask = step(method)
    assert output.prediction.shape[1] == mask.decoded.shape[1] == 4


def test_the_rate_is_scaled_by_the_decoded_share() -> None:
    keys = {"optim.lr": None, "optim.lr_per_256": 1e-3, "train.global_batch": 512}
    base = config.load("image/crossmae-tiny-clipart")
    for scale, factor in (("linear", 1 / 3), ("inverse", 3.0), ("none", 1.0)):
        changed = config.with_overrides(base, keys | {"method.rate_scale": scale}, "test")
        assert changed.recipe.lr == pytest.approx(2e-3 * factor)
    assert base.recipe.lr == 1.5e-3  # an absolute one is as it is


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("mask.decode_ratio", 0.8, "exceeds mask.ratio"),
        ("model.decoder.layers", [0, 9], "exceeds model.encoder.depth"),
        ("model.decoder.layers", [0], "at least one block"),
        ("model.decoder.layers", [1, 1], "none of them twice"),
    ],
)
def test_bad_keys_are_named(key: str, value: Any, word: str) -> None:
    with pytest.raises(UserError, match=word):
        made({key: value})


# --- published checkpoints ------------------------------------------------------------------------


def published_state() -> dict[str, Tensor]:
    named = tensors("crossmae-a").items()
    return {name.removeprefix("state."): t for name, t in named if name.startswith("state.")}


@pytest.mark.parametrize("wrapped", [True, False])
def test_its_checkpoints_open(wrapped: bool, tmp_path: Path) -> None:
    state = published_state()
    file = tmp_path / "crossmae.pth"
    torch.save({"model": state, "epoch": 3, "scaler": {}} if wrapped else state, file)
    opened = open_model(file, Hints(heads=3, decoder_heads=2))
    recipe: Any = opened.resolved.recipe
    assert (recipe.method.name, opened.has_decoder) == ("crossmae", True)
    assert (recipe.model.encoder.depth, recipe.model.decoder.layers) == (3, None)
    own = opened.method.export_reference()
    assert own.keys() == state.keys()
    assert all(torch.equal(own[name], tensor) for name, tensor in state.items())


def test_layers_that_no_setting_tells_are_refused(tmp_path: Path) -> None:
    state = published_state()
    state["wfm.linear.weight"] = state["wfm.linear.weight"][:, :2].clone()
    file = tmp_path / "crossmae.pth"
    torch.save({"model": state}, file)
    with pytest.raises(UserError, match="mixes 2 layers of 3 blocks"):
        open_model(file, Hints(heads=3, decoder_heads=2))


# --- what the reference tensors catch -------------------------------------------------------------


def with_softmax_over_layers(method: Any) -> None:
    method.decoder.mix.weight.data = method.decoder.mix.weight.data.softmax(1)


def without_memory_norm(method: Any) -> None:
    method.decoder.memory_norms = torch.nn.ModuleList(torch.nn.Identity() for _ in range(2))


def with_layers_in_reverse(method: Any) -> None:
    sources = method.decoder.sources
    method.decoder.sources = lambda latent: sources(latent)[::-1]


def without_class_token(method: Any) -> None:
    memories = method.decoder.memories
    method.decoder.memories = lambda latent: memories(latent)[:, :, 1:]


def with_wrong_eps(method: Any) -> None:
    for module in method.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-5


def with_the_last_part_dropped(method: Any) -> None:
    own = method.sampler.section.dropped
    count = own(16)
    sampler = type(method.sampler).__call__

    def sample(noise: Tensor, grid: Any, guide: Any = None) -> Any:
        mask = sampler(method.sampler, noise, grid)
        kept = mask.masked[:, : mask.masked.shape[1] - count].sort(dim=1).values
        return type(mask)(grid, mask.visible, mask.masked, kept, mask.decoded_masked)

    method.sampler = sample


@pytest.mark.parametrize(
    "sabotage",
    [
        with_softmax_over_layers,
        without_memory_norm,
        with_layers_in_reverse,
        without_class_token,
        with_wrong_eps,
        with_the_last_part_dropped,
    ],
)
def test_a_wrong_model_fails(monkeypatch: Any, sabotage: Any) -> None:
    load = golden_build.load

    def load_and_break(method: Method, *rest: Any) -> None:
        load(method, *rest)
        sabotage(method)

    monkeypatch.setattr(golden_build, "load", load_and_break)
    assert run.check(stored("crossmae-a")).verdict == "fail"


def test_a_mixture_that_does_not_decay_fails(monkeypatch: Any) -> None:
    from mimsuite.methods.cross_mae import CrossMAE

    monkeypatch.setattr(CrossMAE, "no_weight_decay", lambda self: {"decoder.mix.weight"})
    assert run.check(stored("crossmae-traj-a")).verdict == "fail"
