"""Masks of clips: tubes (VideoMAE, Tong et al., arXiv:2203.12602, section 3.3) or single tokens.

Both support the decoder mask of VideoMAE V2, by which the decoder reconstructs only some tokens
(:mod:`~mimsuite.masking.running_cell`).

Letters: B batch, grid (T, H, W) of tokens, N = T * H * W.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mimsuite.config.keys.masks import ClipMaskSection
from mimsuite.masking.mask import TokenMask
from mimsuite.masking.running_cell import PHASES, decoded_ids
from mimsuite.masking.sampler import Sampler


class ClipSampler(Sampler):
    """Base: hides ``int(ratio * n)`` of n places at random.

    Visible and masked tokens are each in raster order.
    """

    section: ClipMaskSection

    def places(self, grid: tuple[int, ...]) -> int:
        """n, the number of places; a place is masked or visible as a whole."""
        raise NotImplementedError

    def noise_width(self, grid: tuple[int, ...]) -> int:
        """One number per place, and one for the phase of the decoder mask."""
        return self.places(grid) + 1

    def __call__(
        self, noise: Tensor, grid: tuple[int, ...], guide: Tensor | None = None
    ) -> TokenMask:
        """Mask of (B, n + 1) float32 noise."""
        places = self.places(grid)
        order = noise[:, :places].argsort(dim=1, stable=True)
        visible = places - self.section.hidden(places)
        parts = (order[:, :visible], order[:, visible:])
        ids = [self.tokens(part.sort(dim=1).values, grid) for part in parts]
        mask = TokenMask(grid, *ids)
        return self.thinned(mask, (noise[:, -1] * PHASES).long())

    def tokens(self, places: Tensor, grid: tuple[int, ...]) -> Tensor:
        """(B, k) places in raster order -> the ids of their tokens, in raster order."""
        raise NotImplementedError

    def thinned(self, mask: TokenMask, phase: Tensor) -> TokenMask:
        """Add ``decoded`` by the phases (B,) if the section has a decoder ratio."""
        if not self.section.decoder_ratio:
            return mask
        frames, rows, columns = mask.grid
        table = decoded_ids(
            (frames, rows, columns), self.section.decoder_ratio, mask.visible.device
        )
        decoded = table[phase]  # (B, Nd)
        hidden = mask.dense().gather(1, decoded)
        if self.section.decode_visible:
            return TokenMask(mask.grid, mask.visible, mask.masked, decoded, hidden)
        # All tubes have the same number of decoded tokens, so this count holds for every sample.
        tubes = mask.visible.shape[1] // frames
        count = decoded.shape[1] - round(tubes * frames * (1 - self.section.decoder_ratio))
        first = (~hidden).byte().argsort(dim=1, stable=True)[:, :count]
        return TokenMask(
            mask.grid,
            mask.visible,
            mask.masked,
            decoded.gather(1, first),
            hidden.gather(1, first),
        )


class TubeSampler(ClipSampler):
    """Masks positions of the frame for the whole clip."""

    def places(self, grid: tuple[int, ...]) -> int:
        return math.prod(grid[1:])

    def tokens(self, places: Tensor, grid: tuple[int, ...]) -> Tensor:
        frame = torch.arange(grid[0], device=places.device) * self.places(grid)
        return (frame[:, None] + places[:, None]).flatten(1)


class SpacetimeSampler(ClipSampler):
    """Masks each token of the clip independently."""

    def places(self, grid: tuple[int, ...]) -> int:
        return math.prod(grid)

    def tokens(self, places: Tensor, grid: tuple[int, ...]) -> Tensor:
        return places
