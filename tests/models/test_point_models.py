"""The parts of point transformers against plainer ways of computing the same."""

from __future__ import annotations

import torch
from torch import Tensor

from mimsuite.config.keys.points import PointDecoderSection, PointTransformerSection
from mimsuite.masking import TokenMask
from mimsuite.models import PointDecoder, PointHead, PointTransformer
from mimsuite.models.part_head import interpolate
from mimsuite.models.point_decoder import visible_first
from mimsuite.models.point_net import MiniPointNet
from mimsuite.noise import Noise

SECTION = PointTransformerSection(
    points=64, groups=8, group_size=6, width=24, depth=2, heads=4, tokenizer=(8, 16, 32)
)


def published_tokens(net: MiniPointNet, points: Tensor) -> Tensor:
    """The published layout: convolutions over (B G, channels, K), [g, f] side by side."""
    batch, groups, size, _ = points.shape
    local = net.first_conv(points.flatten(0, 1).transpose(1, 2))
    overall = local.max(dim=2, keepdim=True).values
    both = torch.cat([overall.expand(-1, -1, size), local], dim=1)
    return net.second_conv(both).max(dim=2).values.view(batch, groups, -1)


def test_the_split_layer_is_exact_and_so_is_its_gradient() -> None:
    torch.manual_seed(0)
    ours, plain = MiniPointNet(24), MiniPointNet(24)
    plain.load_state_dict(ours.state_dict())
    points = torch.randn(3, 5, 7, 3)
    weight = torch.randn(3, 5, 24)
    tokens = ours(points), published_tokens(plain, points)
    torch.testing.assert_close(tokens[0], tokens[1], atol=2e-5, rtol=1e-4)
    for out in tokens:
        (out * weight).sum().backward()
    for (name, mine), theirs in zip(ours.named_parameters(), plain.parameters(), strict=True):
        assert mine.grad is not None
        if not name.endswith(("first_conv.0.bias", "first_conv.3.bias", "second_conv.0.bias")):
            error = (mine.grad - theirs.grad).norm() / theirs.grad.norm()
            assert error < 1e-4, name
    for mine, theirs in zip(ours.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_positions_are_added_before_every_block() -> None:
    encoder = PointTransformer(SECTION).eval()
    tokens, center = torch.randn(2, 5, 24), torch.randn(2, 5, 3)
    x, positions = tokens, encoder.pos_embed(center)
    for block in encoder.blocks:
        x = block(x + positions)
    torch.testing.assert_close(encoder(tokens, center).tokens, encoder.norm(x))


def test_drop_path_is_keyed_by_sample() -> None:
    section = SECTION.model_copy(update={"drop_path": 0.5})
    encoder = PointTransformer(section).train()
    tokens, center = torch.randn(6, 5, 24), torch.randn(6, 5, 3)
    index = torch.arange(6)
    whole = encoder(tokens, center, noise=Noise(0, 3, index)).tokens
    half = encoder(tokens[3:], center[3:], noise=Noise(0, 3, index[3:])).tokens
    torch.testing.assert_close(whole[3:], half)
    other = encoder(tokens, center, noise=Noise(0, 4, index)).tokens
    assert not torch.allclose(whole, other)


def test_the_decoder_computes_masked_groups_alone_to_the_same() -> None:
    decoder = PointDecoder(PointDecoderSection(depth=2, heads=4), SECTION).eval()
    removed = torch.rand(3, 8).argsort(1) < 5
    mask = TokenMask.from_removed(removed, (8,))
    latent, center = torch.randn(3, 3, 24), torch.randn(3, 8, 3)
    places = visible_first(center, mask)
    everywhere = decoder(latent, places, everywhere=True)
    assert everywhere.shape == (3, 8, 24)
    torch.testing.assert_close(decoder(latent, places), everywhere[:, 3:])
    assert decoder.predict(everywhere).shape == (3, 8, 6, 3)


def test_dropout_of_the_head_is_keyed_and_off_when_scored() -> None:
    head = PointHead(10, 4, "mlp3", 0.5).train()
    for layer in head.layers:
        if isinstance(layer, torch.nn.BatchNorm1d):
            layer.eval()  # rows of a batch do not depend on each other then
    x, index = torch.randn(6, 10), torch.arange(6)
    whole = head(x, Noise(0, 0, index))
    torch.testing.assert_close(whole[4:], head(x[4:], Noise(0, 0, index[4:])))
    assert not torch.allclose(whole, head(x, Noise(0, 1, index)))
    head.eval()
    assert torch.equal(head(x), head(x))


def test_interpolation_is_exact_at_the_centres() -> None:
    center, features = torch.randn(2, 6, 3), torch.randn(2, 6, 5)
    torch.testing.assert_close(
        interpolate(center, center, features), features, atol=1e-4, rtol=1e-4
    )


def test_hidden_tokens_see_all_and_are_seen_by_hidden_ones_only() -> None:
    encoder = PointTransformer(SECTION).eval()
    tokens, center = torch.randn(2, 3, 24), torch.randn(2, 3, 3)
    hidden = (torch.randn(2, 5, 24), torch.randn(2, 5, 24))
    alone = encoder(tokens, center).tokens
    both = encoder(tokens, center, hidden=hidden).tokens
    torch.testing.assert_close(both[:, :3], alone)
    fewer = encoder(tokens, center, hidden=(hidden[0][:, :4], hidden[1][:, :4])).tokens
    assert not torch.allclose(fewer[:, 3:], both[:, 3:7])
    moved = encoder(torch.randn_like(tokens), center, hidden=hidden).tokens
    assert not torch.allclose(moved[:, 3:], both[:, 3:])
