"""Pixio: masked squares, class tokens, the plain function, and transformers' encoder."""

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
from mimsuite.config.keys.masks import SquareMaskSection
from mimsuite.errors import UserError
from mimsuite.masking import build_sampler
from mimsuite.methods import build
from mimsuite.noise import FixedNoise

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS)]
import needs  # noqa: E402
from plain_models import Sizes, squares_autoencoder  # noqa: E402

SMALL = {
    "model.encoder.image_size": 32,
    "model.encoder.patch_size": 4,
    "model.encoder.width": 16,
    "model.encoder.depth": 2,
    "model.encoder.heads": 2,
    "model.encoder.class_tokens": 3,
    "model.decoder.width": 8,
    "model.decoder.depth": 3,
    "model.decoder.heads": 2,
}
SIZES = Sizes(grid=(8, 8), patch=4, width=16, depth=2, decoder_depth=3, mlp_ratio=4.0)


def made(changes: dict[str, Any] | None = None) -> Any:
    base = config.load("image/pixio-tiny-clipart")
    torch.manual_seed(0)
    method = build(config.with_overrides(base, SMALL | (changes or {}), "test").recipe)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return method.double().train()


def images(batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(1)).double()


def test_it_is_the_plain_function() -> None:
    method, batch = made(), Batch.of_images(images())
    noise = torch.rand(2, 16, generator=torch.Generator().manual_seed(2))
    rows = FixedNoise({"mask": noise})
    context = method.prepare(batch, rows)
    masks = method.mask(batch, rows, context)
    output = method(batch, masks, context)
    plain = squares_autoencoder(method.export_reference(), images(), noise, SIZES, side=2)
    assert torch.equal(masks["image"].dense(), plain.mask)
    torch.testing.assert_close(output.loss, plain.loss, atol=1e-10, rtol=1e-10)
    ours = method.reconstruct(batch, masks, context)
    torch.testing.assert_close(ours, plain.prediction, atol=1e-10, rtol=1e-10)
    output.loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in method.parameters())


@pytest.mark.parametrize(("grid", "side", "ratio"), [((4, 8), 2, 0.75), ((6, 6), 3, 0.5)])
def test_whole_squares_are_masked(grid: tuple[int, int], side: int, ratio: float) -> None:
    sampler = build_sampler(SquareMaskSection(side=side, ratio=ratio))
    assert sampler.noise_width(grid) == grid[0] * grid[1] // side**2
    mask = sampler(torch.rand(5, sampler.noise_width(grid)), grid)
    dense = mask.dense().view(5, grid[0] // side, side, grid[1] // side, side).transpose(2, 3)
    squares = dense.flatten(3).float().mean(3)
    assert set(squares.unique().tolist()) == {0.0, 1.0}
    assert (1 - squares).sum((1, 2)).tolist() == [int(squares[0].numel() * (1 - ratio))] * 5


def test_squares_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match=r"mask.side 3 does not divide the 8 x 8 patches"):
        made({"mask.side": 3})


def test_random_positions_must_train() -> None:
    with pytest.raises(UserError, match="position_start random needs trained_positions true"):
        made({"model.decoder.trained_positions": False})


def test_several_class_tokens_are_pooled() -> None:
    features = made().eval().encode(Batch.of_images(images()), layers=[1])
    assert features.cls.shape == (2, 3, 16)
    assert features.layers[1].shape == (2, 3 + 64, 16)
    assert torch.equal(features.pool("cls"), features.cls.mean(1))
    both = features.pool("cls_mean")
    assert torch.equal(both, torch.cat([features.cls.mean(1), features.tokens.mean(1)], 1))
    assert "cls_mean" in features.pools


@pytest.mark.parametrize("decoder", [True, False])
def test_its_checkpoints_open(decoder: bool, tmp_path: Path) -> None:
    state = {name: t.float() for name, t in made().export_reference().items()}
    if not decoder:
        state = {n: t for n, t in state.items() if not n.startswith(("decoder_", "mask_token"))}
    file = tmp_path / "pixio.pth"
    torch.save({"model": state, "epoch": 3} if decoder else state, file)
    opened = open_model(file, Hints(heads=2, decoder_heads=2))
    recipe: Any = opened.resolved.recipe
    assert (recipe.method.name, opened.has_decoder) == ("pixio", decoder)
    assert recipe.model.encoder.class_tokens == 3
    own = opened.method.export_reference()
    assert all(torch.equal(own[name], tensor) for name, tensor in state.items())


def test_the_encoder_is_that_of_transformers() -> None:
    """On images of the trained size, and of another."""
    transformers = needs.module("transformers")
    if not hasattr(transformers, "PixioModel"):
        pytest.skip("this transformers has no Pixio")
    method = made().float().eval()
    settings = transformers.PixioConfig(
        image_size=32,
        patch_size=4,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        n_cls_tokens=3,
        mlp_ratio=4,
        layer_norm_eps=1e-6,
    )
    theirs = transformers.PixioModel(settings).eval()
    theirs.load_state_dict(_as_transformers(method.export_reference()), strict=True)
    for size in ((32, 32), (24, 40)):
        pictures = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(3))
        with torch.no_grad():
            found = method.encode(Batch.of_images(pictures))
            expected = theirs(pictures).last_hidden_state
        ours = torch.cat([found.cls, found.tokens], dim=1)
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)


def _as_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    named = {
        "embeddings.cls_token": state["cls_token"],
        "embeddings.position_embeddings": state["pos_embed"],
    }
    for part in ("weight", "bias"):
        named[f"embeddings.patch_embeddings.projection.{part}"] = state[f"patch_embed.proj.{part}"]
        named[f"layernorm.{part}"] = state[f"norm.{part}"]
        for i in range(2):
            theirs, ours = f"layers.{i}", f"blocks.{i}"
            for name, own in (("layernorm_before", "norm1"), ("layernorm_after", "norm2")):
                named[f"{theirs}.{name}.{part}"] = state[f"{ours}.{own}.{part}"]
            rows = state[f"{ours}.attn.qkv.{part}"].chunk(3)
            for letter, each in zip("qkv", rows, strict=True):
                named[f"{theirs}.attention.{letter}_proj.{part}"] = each
            named[f"{theirs}.attention.o_proj.{part}"] = state[f"{ours}.attn.proj.{part}"]
            for layer in ("fc1", "fc2"):
                named[f"{theirs}.mlp.{layer}.{part}"] = state[f"{ours}.mlp.{layer}.{part}"]
    return named
