"""A model of this suite that gives an image codes, as a tokenizer.

Letters: B batch, C channels, h x w grid of codes, N = h * w, K codes of the vocabulary, P = p*p*C
numbers of a student's patch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mimsuite.config.keys.tokenizers import RunTokenizerSection
from mimsuite.errors import UserError
from mimsuite.models.teachers.files import require
from mimsuite.models.trained import open_trained
from mimsuite.targets.tokenizers import DrawingTokenizer, Statistics

_WHERE = "a run, checkpoint or export of a model with codes (recipes image/vqrae-*, image/dvae-*)"


class TrainedCodes(nn.Module):
    """A trained model with ``codes`` and ``drawn``, between pixels in [0, 1] and codes."""

    mean: Tensor
    std: Tensor

    def __init__(self, method: Any, statistics: Statistics) -> None:
        super().__init__()
        self.method = method
        for name, values in zip(("mean", "std"), statistics, strict=True):
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, C, H, W) pixels in [0, 1] -> (B, h, w) int64 codes."""
        codes: Tensor = self.method.codes((pixels - self.mean) / self.std)
        return codes

    def draw(self, codes: Tensor) -> Tensor:
        """(B, h, w) codes -> (B, C, H, W) pixels in [0, 1]."""
        pixels: Tensor = self.method.drawn(codes)
        return pixels


class RandomCodes(nn.Module):
    """Codes of a random linear map of each patch, in place of a trained model."""

    def __init__(self, section: RunTokenizerSection, channels: int) -> None:
        super().__init__()
        self.scores = nn.Conv2d(channels, section.codes, section.stride, section.stride)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, C, H, W) pixels in [0, 1] -> (B, h, w) int64 codes."""
        codes: Tensor = self.scores(pixels).argmax(1)
        return codes

    def draw(self, codes: Tensor) -> None:
        """Such codes stand for no pixels."""


class RunTokenizer(DrawingTokenizer):
    """The codes of a frozen model."""

    def codes_of(self, network: nn.Module, pixels: Tensor) -> Tensor:
        codes: Tensor = network(pixels)
        return codes.flatten(1)


def load(
    section: RunTokenizerSection,
    channels: int,
    grid: tuple[int, int],
    key: str,
    weights: bool = True,
) -> nn.Module:
    """The model of ``section.weights``, or random codes.

    Raises:
        UserError: no usable weights, or their shape contradicts the recipe.
    """
    if not weights:
        return RandomCodes(section, channels)
    opened = open_trained(require(section.weights, key, _WHERE))
    recipe, method = opened.resolved.recipe, opened.method
    if not hasattr(method, "vocabulary"):
        raise UserError(
            f"{key}.weights={section.weights} was trained by method '{recipe.method.name}', which "
            f"has no codes; it should be {_WHERE}"
        )
    encoder = recipe.model.encoder
    for name, value in (("codes", method.vocabulary), ("stride", encoder.patch_size)):
        if getattr(section, name) != value:
            raise UserError(
                f"{key}.{name} is {getattr(section, name)}, {section.weights} has {value}: "
                f"set {key}.{name}={value}"
            )
    if encoder.in_channels != channels:
        raise UserError(
            f"{key}.weights={section.weights} reads images of {encoder.in_channels} channels, "
            f"model.encoder.in_channels is {channels}"
        )
    if tuple(encoder.grid) != tuple(grid):
        raise UserError(
            f"{key}.weights={section.weights} gives {encoder.grid[0]} x {encoder.grid[1]} codes, "
            f"model.encoder has {grid[0]} x {grid[1]} patches: they must be equal"
        )
    return TrainedCodes(method, (recipe.augment.mean, recipe.augment.std))
