"""ConvViT and ConvMAE: computing visible tokens alone is the published masked convolution."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mimsuite import config, methods
from mimsuite.batch import Batch
from mimsuite.config.keys.encoders import ConvViTSection
from mimsuite.errors import UserError
from mimsuite.masking import TokenMask, gather_tokens
from mimsuite.methods import Context
from mimsuite.models import ConvViT
from mimsuite.models.conv_vit import PixelMap
from mimsuite.noise import FixedNoise, Noise

EXACT = {"atol": 1e-10, "rtol": 1e-10}


def section(**keys: Any) -> ConvViTSection:
    sizes: dict[str, Any] = {
        **{"image_size": (32, 48), "patch_size": 8, "conv_strides": (2, 2), "in_channels": 2},
        **{"conv_width": (8, 12), "conv_depth": (2, 1), "conv_kernel": 3, "width": 16},
        **{"depth": 2, "heads": 2, "mlp_ratio": 2.0, "fusion": True},
    }
    return ConvViTSection(**{**sizes, **keys})


def encoder(**keys: Any) -> ConvViT:
    torch.manual_seed(0)
    model = ConvViT(section(**keys)).double()
    with torch.no_grad():  # so that biases and norm affines matter
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def images(model: ConvViT, batch: int = 3) -> Tensor:
    height, width = model.section.image_size
    return torch.randn(batch, model.section.in_channels, height, width, dtype=torch.float64)


def random_mask(model: ConvViT, batch: int = 3, visible: int = 5) -> TokenMask:
    order = torch.rand(batch, model.grid[0] * model.grid[1]).argsort(1)
    return TokenMask.from_order(order, visible, model.grid)


def plain(model: ConvViT, image: Tensor, mask: TokenMask | None) -> Tensor:
    """The paper's encoder: whole maps, the mask upsampled by nearest neighbours to each."""
    rows, columns = model.grid
    seen = torch.ones(len(image), 1, rows, columns, dtype=image.dtype)
    if mask is not None:
        seen = (~mask.dense()).to(image.dtype).view(-1, 1, rows, columns)

    def norm(layer: Any, x: Tensor) -> Tensor:
        return layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def embed(module: Any, x: Tensor) -> Tensor:
        conv = module.proj
        return F.gelu(norm(module.norm, F.conv2d(x, conv.weight, conv.bias, conv.stride)))

    def pointwise(conv: Any, x: Tensor) -> Tensor:
        return F.conv2d(x, conv.weight, conv.bias)

    x, maps = image, []
    for stage in (model.stage1, model.stage2):
        x = embed(stage.embed, x)
        fine = F.interpolate(seen, size=x.shape[2:], mode="nearest")
        for block in stage.blocks:
            mixed = block.attn(fine * pointwise(block.conv1, norm(block.norm1, x)))
            x = x + pointwise(block.conv2, mixed)
            hidden = F.gelu(pointwise(block.mlp.fc1, norm(block.norm2, x)))
            x = x + pointwise(block.mlp.fc2, hidden)
        maps.append(x)
    tokens = embed(model.patch_embed, x).flatten(2).mT  # (B, N, D)
    tokens = model.token_embed(tokens) + model.pos_embed
    fused = sum(
        F.conv2d(m, conv.weight, conv.bias, conv.stride).flatten(2).mT
        for conv, m in zip(model.fusion, maps, strict=True)
    )
    if mask is not None:
        tokens, fused = mask.gather(tokens, "visible"), mask.gather(fused, "visible")
    for block in model.blocks:
        tokens = block(tokens)
    return model.norm(tokens + fused if mask is not None else tokens)


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"conv_strides": (4, 2), "image_size": (24, 24), "conv_kernel": 5},
        {"patch_size": 16, "image_size": (32, 64), "in_channels": 1, "conv_depth": (1, 2)},
    ],
)
def test_it_is_the_plain_masked_convolution(keys: dict[str, Any]) -> None:
    model = encoder(**keys)
    image, mask = images(model), random_mask(model)
    ours = model(model.patches(image, mask.visible), mask.visible).tokens
    expected = plain(model, image, mask)
    torch.testing.assert_close(ours, expected, **EXACT)
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    parameters = [model.get_parameter(name) for name in names]
    direction = torch.randn_like(ours)
    gradients = torch.autograd.grad(ours, parameters, direction)
    for mine, theirs in zip(
        gradients, torch.autograd.grad(expected, parameters, direction), strict=True
    ):
        torch.testing.assert_close(mine, theirs, **EXACT)


def test_masked_pixels_never_change_the_visible_features_of_the_plain_version() -> None:
    """Which is why they need not be computed."""
    model = encoder()
    image, mask = images(model), random_mask(model)
    hidden = mask.dense().view(-1, 1, *model.grid).repeat_interleave(8, 2).repeat_interleave(8, 3)
    changed = image.masked_fill(hidden, 7.0)
    assert not torch.equal(image, changed)
    torch.testing.assert_close(plain(model, image, mask), plain(model, changed, mask), **EXACT)


def test_unmasked_maps_and_no_fusion() -> None:
    model = encoder()
    image = images(model)
    features = model.encode(Batch.of_images(image))
    torch.testing.assert_close(features.tokens, plain(model, image, None), **EXACT)
    assert features.cls.shape == (3, 0, 16)
    assert [(tuple(t.shape), grid) for t, grid in features.maps] == [
        ((3, 16 * 24, 8), (16, 24)),
        ((3, 8 * 12, 12), (8, 12)),
        ((3, 4 * 6, 16), (4, 6)),
    ]
    pixels = F.gelu(
        model.stage1.embed.norm(
            F.conv2d(
                image, model.stage1.embed.proj.weight, model.stage1.embed.proj.bias, stride=2
            ).permute(0, 2, 3, 1)
        )
    )
    bare = encoder(conv_depth=(1, 1))
    bare.stage1.blocks = torch.nn.ModuleList()
    bare.section = section(conv_depth=(1, 1)).model_copy(update={"conv_depth": (0, 1)})
    bare.load_state_dict({n: model.state_dict()[n] for n in bare.state_dict()})
    stage1 = bare.encode(Batch.of_images(image)).maps[0][0]  # in raster order
    torch.testing.assert_close(stage1, pixels.flatten(1, 2), **EXACT)


def test_another_size_resizes_positions() -> None:
    model = encoder()
    features = model.encode(Batch.of_images(torch.randn(1, 2, 16, 64, dtype=torch.float64)))
    assert features.tokens.shape == (1, 16, 16)
    assert features.layers == {}


def test_pixels_lie_where_nearest_neighbours_put_the_mask() -> None:
    ids = torch.tensor([[5, 0], [1, 4]])  # of a grid of 2 x 3
    where = PixelMap.of(ids, (2, 3), side=2)
    spread = where.spread(torch.ones(2, 2, 4, 1))
    seen = torch.zeros(2, 6).scatter(1, ids, 1.0).view(2, 1, 2, 3)
    assert torch.equal(spread, F.interpolate(seen, scale_factor=2, mode="nearest"))
    pixels = torch.randn(2, 2, 4, 1)
    assert torch.equal(where.pick(where.spread(pixels), like=pixels), pixels)


def test_drop_path_is_keyed_by_sample() -> None:
    model = encoder(drop_path=0.5).train()
    image = images(model, 4)
    whole = model(model.patches(image), noise=Noise(0, 3, torch.arange(4))).tokens
    last = model(model.patches(image[2:]), noise=Noise(0, 3, torch.arange(2, 4))).tokens
    torch.testing.assert_close(whole[2:], last, **EXACT)
    other = model(model.patches(image), noise=Noise(0, 4, torch.arange(4))).tokens
    assert not torch.allclose(whole, other)
    with pytest.raises(ValueError, match="keyed noise"):
        model(model.patches(image))


def test_layers_are_counted_from_the_transformer_on() -> None:
    model = encoder()
    ids = {name: model.layer_id(name) for name, _ in model.named_parameters()}
    assert {ids[n] for n in ids if n.startswith(("stage", "patch_", "token_", "pos_"))} == {0}
    assert ids["blocks.1.norm1.weight"] == 2
    assert ids["norm.weight"] == 3


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ({"conv_strides": (4, 4)}, "conv_strides 4 x 4 do not divide patch_size 8"),
        ({"conv_kernel": 4}, "conv_kernel 4 must be odd"),
        ({"image_size": 30}, "patch_size 8 does not divide"),
    ],
)
def test_sizes_that_do_not_fit(keys: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        section(**keys)


# --- the method ---


def convmae() -> Any:
    resolved = config.load("image/mcmae-b-in1k", smoke=True)
    keys = {"model.encoder.image_size": [32, 64]}
    torch.manual_seed(0)
    return methods.build(config.with_overrides(resolved, keys, "test").recipe)


def test_reconstruction_has_the_training_path_in_masked_places() -> None:
    method = convmae()
    batch = Batch.of_images(torch.randn(2, 3, 32, 64))
    noise = FixedNoise({"mask": torch.rand(2, 8)})
    ctx: Context = method.prepare(batch, noise)
    masks = method.mask(batch, noise, ctx)
    output = method(batch, masks, ctx)
    everywhere = method.reconstruct(batch, masks, ctx)
    assert masks["image"].grid == (2, 4)
    torch.testing.assert_close(
        gather_tokens(everywhere, masks["image"].masked), output.prediction, atol=1e-5, rtol=1e-5
    )
    titles = [panel.title for panel in method.panels(batch, masks, ctx)]
    assert titles[:2] == ["original", "masked"]
    assert {panel.images.shape for panel in method.panels(batch, masks, ctx)} == {(2, 3, 32, 64)}


def test_every_trained_parameter_has_a_gradient() -> None:
    method = convmae()
    batch = Batch.of_images(torch.randn(2, 3, 32, 64))
    noise = Noise(0, 0, batch.index)
    ctx = method.prepare(batch, noise)
    method(batch, method.mask(batch, noise, ctx), ctx).loss.backward()
    without = [n for n, p in method.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []


def test_a_mask_that_shows_nothing_is_refused() -> None:
    with pytest.raises(UserError, match=r"mask\.ratio 0\.95 leaves 0 of 16"):
        config.load("image/mcmae-b-in1k", ["mask.ratio=0.95"], smoke=True)
