"""Encoder and decoder of a discrete autoencoder: convolutions between an image and a grid of codes.

The architecture follows van den Oord et al. (arXiv:1711.00937) and DALL-E (arXiv:2102.12092,
appendix A.2): convolutions of stride two, then residual blocks at the resolution of the codes. The
decoder mirrors the encoder.

Letters: B batch, C channels, H x W pixels, h x w grid of codes, N = h * w, K codes of the
vocabulary, D width.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise

import torch
from torch import Tensor, nn

from mimsuite.batch import Batch
from mimsuite.config.keys.dvae import CodeDecoderSection, CodeEncoderSection
from mimsuite.models.encoder import Encoder
from mimsuite.models.features import Features
from mimsuite.noise import Noise


class ConvBlock(nn.Module):
    """``x + residual(x)``: 3x3, 3x3, 1x1 convolutions, each after a ReLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        grown: Tensor = x + self.layers(x)
        return grown


class CodeEncoder(Encoder):
    """Images -> scores of codes; one code per ``patch_size`` x ``patch_size`` pixels.

    Probes read the outputs of the residual blocks. There is no class token.
    """

    embeddings = ("stem.",)

    def __init__(self, section: CodeEncoderSection) -> None:
        super().__init__(section)
        self.grid, self.width, self.depth = section.grid, section.width, section.depth
        channels = [section.in_channels] + [section.width] * _halvings(section.patch_size)
        self.stem = nn.Sequential()
        for number, (inputs, outputs) in enumerate(pairwise(channels)):
            if number:
                self.stem.append(nn.ReLU())
            self.stem.append(nn.Conv2d(inputs, outputs, 4, stride=2, padding=1))
        self.blocks = nn.ModuleList(ConvBlock(section.width) for _ in range(section.depth))
        self.norm = nn.Identity()
        self.scores = nn.Conv2d(section.width, section.codes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) normalised images -> (B, K, h, w) scores."""
        x = self.stem(images)
        for block in self.blocks:
            x = block(x)
        scores: Tensor = self.scores(torch.relu(x))
        return scores

    def encode(
        self, batch: Batch, *, noise: Noise | None = None, layers: Collection[int] = ()
    ) -> Features:
        """Features (B, N, D) of whole images of any size that ``patch_size`` divides."""
        x = self.stem(batch.image)
        outputs = {}
        for number, block in enumerate(self.blocks, start=1):
            x = block(x)
            if number in layers:
                outputs[number] = _tokens(x)
        tokens = _tokens(x)
        return Features(tokens[:, :0], tokens, outputs, pools=("mean", "max"))

    def sample(self) -> tuple[str, tuple[int, ...]]:
        rows, columns = (side * self.section.patch_size for side in self.grid)
        return "image", (self.section.in_channels, rows, columns)


class CodeDecoder(nn.Module):
    """Codes -> images: an embedding per code, residual blocks, transposed convolutions."""

    def __init__(self, section: CodeDecoderSection, encoder: CodeEncoderSection) -> None:
        super().__init__()
        self.codebook = nn.Parameter(torch.randn(encoder.codes, section.code_width))
        self.embed = nn.Conv2d(section.code_width, section.width, 1)
        self.blocks = nn.ModuleList(ConvBlock(section.width) for _ in range(section.depth))
        self.rise = nn.Sequential()
        channels = [section.width] * _halvings(encoder.patch_size) + [encoder.in_channels]
        for inputs, outputs in pairwise(channels):
            self.rise.append(nn.ReLU())
            self.rise.append(nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1))

    def forward(self, weights: Tensor) -> Tensor:
        """(B, h, w, K) weights of the codes, summing to 1 -> (B, C, H, W) normalised images."""
        return self._rebuilt(weights @ self.codebook)

    def draw(self, codes: Tensor) -> Tensor:
        """(B, h, w) codes -> (B, C, H, W) normalised images."""
        return self._rebuilt(self.codebook[codes])

    def _rebuilt(self, vectors: Tensor) -> Tensor:
        x = self.embed(vectors.permute(0, 3, 1, 2))  # (B, h, w, E) -> (B, D, h, w)
        for block in self.blocks:
            x = block(x)
        images: Tensor = self.rise(x)
        return images


def _tokens(x: Tensor) -> Tensor:
    """(B, D, h, w) -> (B, N, D) in raster order."""
    return x.flatten(2).transpose(1, 2)


def _halvings(stride: int) -> int:
    return stride.bit_length() - 1
