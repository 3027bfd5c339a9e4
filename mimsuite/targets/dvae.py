"""A discrete autoencoder trained by this suite, as a tokenizer.

Letters: B batch, C channels, H x W pixels, h x w grid of codes, N = h * w, K codes of the
vocabulary, P = p*p*C numbers of a student's patch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mimsuite.config.keys.dvae import CodeDecoderSection, CodeEncoderSection
from mimsuite.config.keys.tokenizers import DVAETokenizerSection
from mimsuite.errors import UserError
from mimsuite.models.dvae import CodeDecoder, CodeEncoder
from mimsuite.models.teachers.files import require
from mimsuite.models.trained import open_trained
from mimsuite.targets.tokenizers import Statistics

_METHOD = "dvae"
_WHERE = "a run, checkpoint or export of this suite's discrete autoencoder (recipes image/dvae-*)"


class DiscreteAutoencoder(nn.Module):
    """A trained encoder and decoder between pixels in [0, 1] and codes."""

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: CodeEncoder, decoder: CodeDecoder, statistics: Statistics) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        for name, values in zip(("mean", "std"), statistics, strict=True):
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, C, H, W) pixels in [0, 1] -> (B, K, h, w) scores."""
        scores: Tensor = self.encoder((pixels - self.mean) / self.std)
        return scores

    def draw(self, codes: Tensor) -> Tensor:
        """(B, h, w) codes -> (B, C, H, W) pixels in [0, 1]."""
        return (self.decoder.draw(codes) * self.std + self.mean).clamp(0, 1)


def load(
    section: DVAETokenizerSection,
    channels: int,
    grid: tuple[int, int],
    key: str,
    weights: bool = True,
) -> DiscreteAutoencoder:
    """The trained autoencoder of ``section.weights``, or one with random weights.

    Args:
        channels: channels of the student's images.
        weights: load trained weights; else initialise a network of the recipe's shape.

    Raises:
        UserError: no usable weights, or their shape contradicts the recipe.
    """
    if not weights:
        return _fresh(section, channels, grid)
    path = require(section.weights, key, _WHERE)
    opened = open_trained(path)
    recipe, method = opened.resolved.recipe, opened.method
    if recipe.method.name != _METHOD:
        raise UserError(
            f"{key}.weights={section.weights} was trained by method '{recipe.method.name}'; it "
            f"should be {_WHERE}"
        )
    encoder, decoder = method.encoder, method.decoder
    assert isinstance(encoder, CodeEncoder)
    assert isinstance(decoder, CodeDecoder)
    _require(section, encoder.section, channels, key)
    return DiscreteAutoencoder(encoder, decoder, (recipe.augment.mean, recipe.augment.std))


def _require(
    section: DVAETokenizerSection, trained: CodeEncoderSection, channels: int, key: str
) -> None:
    """Raise a ``UserError`` where the recipe contradicts the trained autoencoder."""
    expected = {
        "codes": trained.codes,
        "width": trained.width,
        "depth": trained.depth,
        "stride": trained.patch_size,
    }
    for name, value in expected.items():
        if getattr(section, name) != value:
            raise UserError(
                f"{key}.{name} is {getattr(section, name)}, {section.weights} has {value}: "
                f"set {key}.{name}={value}"
            )
    if trained.in_channels != channels:
        raise UserError(
            f"{key}.weights={section.weights} reads images of {trained.in_channels} channels, "
            f"model.encoder.in_channels is {channels}"
        )


def _fresh(
    section: DVAETokenizerSection, channels: int, grid: tuple[int, int]
) -> DiscreteAutoencoder:
    stride = section.stride
    encoder = CodeEncoderSection(
        kind="dvae",
        image_size=(grid[0] * stride, grid[1] * stride),
        patch_size=stride,
        in_channels=channels,
        width=section.width,
        depth=section.depth,
        codes=section.codes,
    )
    decoder = CodeDecoderSection(width=section.width, depth=section.depth, code_width=section.width)
    return DiscreteAutoencoder(
        CodeEncoder(encoder), CodeDecoder(decoder, encoder), ((0.5,) * channels, (0.5,) * channels)
    )
