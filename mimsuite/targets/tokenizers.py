"""Tokenizers: a discrete code for every patch, as prediction target.

Letters: B batch, N patches, P = p*p*C numbers of a patch, K codes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimsuite.batch import Batch
from mimsuite.config.keys.tokenizers import RANDOM
from mimsuite.tokens import patchify
from mimsuite.tokens.constants import constant

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
Batches = Callable[[], Iterable[Batch]] | None


class Tokenizer(ABC):
    """Assigns a code to each patch of an image.

    Attributes:
        drawing_note: suffix for the titles of drawings that use more than the codes, else empty.
    """

    drawing_note = ""

    @abstractmethod
    def __call__(self, batch: Batch) -> Tensor:
        """(B, N) int64 codes in raster order, on the batch's device."""

    def setup(self, batches: Batches, seed: int) -> list[str]:
        """Set up before the first step; returns lines to print.

        Args:
            batches: the training stream from its start, the same on every rank; ``None`` where a
                checkpoint will restore the fitted state.
            seed: key of all random draws.

        Raises:
            UserError: weights are missing or do not fit.
        """
        return []

    def draw(self, codes: Tensor, patches: Tensor) -> Tensor | None:
        """Decode codes to patches (B, N, P) in the space of the normalised input.

        Args:
            codes: (B, N).
            patches: (B, N, P) of the true image; a drawing may take from it what codes leave out,
                and then has a ``drawing_note``.

        Returns:
            ``None`` where the tokenizer cannot decode codes.
        """
        return None


class FrozenTokenizer(Tokenizer):
    """A frozen network that maps an image to a grid of codes.

    It is part of no state dict, optimizer, moving average or checkpoint. It loads its weights on
    first use, moves itself to the device of the images and undoes their normalisation.

    Args:
        section: recipe section of the network, with ``kind``, ``codes``, ``weights``, ``stride``.
        grid: rows and columns of codes.
        statistics: mean and standard deviation by which the images are normalised.
        load: ``load(True)`` opens the network with its weights, ``load(False)`` with random ones.
            The network maps (B, C, H, W) pixels in [0, 1] to (B, K, h, w) scores.
    """

    def __init__(
        self,
        section: Any,
        grid: tuple[int, int],
        statistics: Statistics,
        load: Callable[[bool], nn.Module],
    ) -> None:
        self.section, self.grid, self.statistics = section, grid, statistics
        self._load = load
        self._network: nn.Module | None = None
        self._blank: nn.Module | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenTokenizer:
        return self  # frozen, so a moving average of the student can share it

    def __call__(self, batch: Batch) -> Tensor:
        view = self.view(batch)
        network = self._opened(view.device)
        # In float32: half precision flips codes whose scores are close.
        with torch.no_grad(), torch.autocast(view.device.type, enabled=False):
            return self.codes_of(network, self.pixels(view))

    def codes_of(self, network: nn.Module, pixels: Tensor) -> Tensor:
        """(B, N) int64 codes that the opened network gives pixels in [0, 1]."""
        scores: Tensor = network(pixels)
        return scores.argmax(1).flatten(1)

    def setup(self, batches: Batches, seed: int) -> list[str]:
        self._opened(torch.device("cpu"))
        line = f"tokenizer: {self.section.kind}, {self.section.codes} codes"
        if self.section.weights != RANDOM:
            return [line]
        return [line, "TOKENIZER WITH RANDOM WEIGHTS: a placeholder, nothing is learnt from it"]

    def view(self, batch: Batch) -> Tensor:
        """The view ``tokenizer``, or the resized ``image`` where there is none (evaluation)."""
        if "tokenizer" in batch.views:
            return batch.views["tokenizer"]
        size = (self.grid[0] * self.section.stride, self.grid[1] * self.section.stride)
        if tuple(batch.image.shape[-2:]) == size:
            return batch.image
        return F.interpolate(batch.image.float(), size, mode="bicubic", antialias=True)

    def pixels(self, images: Tensor) -> Tensor:
        """Normalised images -> pixels, clamped to [0, 1] because bicubic resizing overshoots."""
        mean, std = (
            constant(values, images.float()).view(1, -1, 1, 1) for values in self.statistics
        )
        return (images.float() * std + mean).clamp(0, 1)

    def _opened(self, device: torch.device) -> nn.Module:
        if device.type == "meta":
            if self._blank is None:
                with torch.device("meta"):
                    self._blank = self._load(False)
            return self._blank
        if self._network is None:
            with torch.device("cpu"):
                network = self._load(self.section.weights != RANDOM)
            self._network = network.eval().requires_grad_(False)
        if next(self._network.parameters()).device != device:
            self._network.to(device)
        return self._network


class DrawingTokenizer(FrozenTokenizer):
    """One whose network also draws codes: ``draw`` maps (B, h, w) codes to (B, C, H, W) pixels in
    [0, 1], or to ``None`` where it cannot.

    Args:
        patch: patch size of the student in pixels.
    """

    def __init__(
        self,
        section: Any,
        grid: tuple[int, int],
        statistics: Statistics,
        load: Callable[[bool], nn.Module],
        patch: int,
    ) -> None:
        super().__init__(section, grid, statistics, load)
        self.patch = patch

    @torch.no_grad()
    def draw(self, codes: Tensor, patches: Tensor) -> Tensor | None:
        """(B, N, P): patches of the network's picture, resized to the student's image size."""
        network: Any = self._opened(codes.device)
        with torch.autocast(codes.device.type, enabled=False):
            pixels = network.draw(codes.unflatten(1, self.grid))
        return None if pixels is None else self._patches_of(pixels)

    def _patches_of(self, pixels: Tensor) -> Tensor:
        size = (self.grid[0] * self.patch, self.grid[1] * self.patch)
        if tuple(pixels.shape[-2:]) != size:
            pixels = F.interpolate(pixels, size, mode="bicubic", antialias=True).clamp(0, 1)
        mean, std = (
            torch.tensor(values, device=pixels.device).view(1, -1, 1, 1)
            for values in self.statistics
        )
        return patchify((pixels - mean) / std, self.patch)
