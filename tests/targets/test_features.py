"""Features as targets, and as colours."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mimsuite.config.keys.targets import FeatureLossSection
from mimsuite.masking import TokenMask
from mimsuite.targets import FeatureColours, FeatureTarget, feature_pictures

GENERATOR = torch.Generator().manual_seed(0)
FEATURES = torch.randn(2, 16, 8, generator=GENERATOR) * torch.linspace(1, 5, 8) + 3
PREDICTED = torch.randn(2, 16, 8, generator=GENERATOR)


def target(normalize: str = "none", loss: str = "mse", weight: float = 1.0) -> FeatureTarget:
    return FeatureTarget(FeatureLossSection(normalize=normalize, loss=loss, weight=weight))  # type: ignore[arg-type]


def test_normalisation() -> None:
    normed = target("layer-norm")(FEATURES)
    torch.testing.assert_close(normed.mean(-1), torch.zeros(2, 16), atol=1e-6, rtol=0)
    torch.testing.assert_close(normed.var(-1, correction=0), torch.ones(2, 16), atol=1e-4, rtol=0)
    torch.testing.assert_close(target("unit")(FEATURES).norm(dim=-1), torch.ones(2, 16))
    assert torch.equal(target()(FEATURES), FEATURES)
    assert target("layer-norm")(FEATURES.half()).dtype == torch.float32


def test_losses() -> None:
    wanted = target("layer-norm")(FEATURES)
    assert target(loss="mse").loss(PREDICTED, wanted) == F.mse_loss(PREDICTED, wanted)
    double = target(loss="smooth-l1", weight=2.0).loss(PREDICTED, wanted)
    torch.testing.assert_close(double, 2 * F.smooth_l1_loss(PREDICTED, wanted))
    assert target(loss="cosine").loss(3 * wanted, wanted) == pytest.approx(0.0, abs=1e-6)
    assert target(loss="cosine").loss(-wanted, wanted) == pytest.approx(2.0)


def test_colours_tell_directions_apart_and_do_not_depend_on_sign() -> None:
    colours = FeatureColours(FEATURES)(FEATURES)
    assert colours.shape == (2, 16, 3)
    assert 0 <= colours.min() < colours.max() <= 1
    again = FeatureColours(FEATURES[:, torch.randperm(16, generator=GENERATOR)])(FEATURES)
    torch.testing.assert_close(colours, again, atol=1e-3, rtol=0)
    assert FeatureColours(FEATURES[..., :2])(FEATURES[..., :2]).shape == (2, 16, 3)


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_are_gray_where_nothing_is_predicted(channels: int) -> None:
    images = torch.randn(2, channels, 32, 32, generator=GENERATOR)
    order = torch.stack([torch.randperm(16, generator=GENERATOR) for _ in range(2)])
    mask = TokenMask.from_order(order, 4, (4, 4))
    statistics = ((0.4,) * channels, (0.2,) * channels)
    predicted = (mask.gather(FEATURES, "visible"), mask.visible)
    pictures = feature_pictures(images, mask, 8, FEATURES, predicted, statistics)
    shapes = [tuple(picture.shape) for picture in pictures.values()]
    assert shapes == [(2, channels, 32, 32)] * 2 + [(2, channels, 4, 4)] * 2
    teacher, student = list(pictures.values())[2:]
    pixels = student.flatten(2) * 0.2 + 0.4
    at = mask.visible.unsqueeze(1).expand(-1, channels, -1)
    torch.testing.assert_close(student.flatten(2).gather(2, at), teacher.flatten(2).gather(2, at))
    others = mask.masked.unsqueeze(1).expand(-1, channels, -1)
    torch.testing.assert_close(pixels.gather(2, others), torch.full((2, channels, 12), 0.5))
