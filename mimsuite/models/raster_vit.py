"""An encoder of a time series of rasters: the plain transformer of clips, with other positions.

Codes of place and dates are added to the tokens, each times a trained scale (Prithvi-EO-2.0,
arXiv:2412.02732).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from mimsuite.batch import Batch
from mimsuite.config.keys.bands import RasterViTSection
from mimsuite.models.features import Features
from mimsuite.models.video_vit import VideoViT
from mimsuite.noise import Noise
from mimsuite.tokens import resize_clip_positions
from mimsuite.tokens.volume import sincos_of, sincos_series

Grid = tuple[int, int, int]
_START = 0.1  # initial scale of each code


class PlaceAndDates(nn.Module):
    """Codes of place and dates for the tokens of a grid; both encoder and decoder have one.

    Half of a code's width is of latitude or year, half of longitude or day of the year. What is
    unknown adds nothing.
    """

    def __init__(self, width: int, section: RasterViTSection) -> None:
        super().__init__()
        self.width, self.tubelet = width, section.tubelet
        # One-element vectors: sharded training splits no scalars.
        self.location = nn.Parameter(torch.full((1,), _START)) if section.location else None
        self.dates = nn.Parameter(torch.full((1,), _START)) if section.dates else None

    def forward(self, views: Mapping[str, Tensor], grid: Grid) -> Tensor | None:
        """(B, N, D) to add to tokens; None: nothing is encoded.

        Args:
            views: ``place`` (B, 2) degrees, ``dates`` (B, T, 2); NaN or none is unknown.
        """
        frames, rows, columns = grid
        added: Tensor | None = None
        if self.location is not None and "place" in views:
            code = self._code(views["place"])[:, None]  # (B, 1, D)
            added = self.location * code.expand(-1, frames * rows * columns, -1)
        if self.dates is not None and "dates" in views:
            code = self._code(views["dates"][:, :: self.tubelet])  # (B, T/t, D)
            code = self.dates * code.repeat_interleave(rows * columns, dim=1)
            added = code if added is None else added + code
        return added

    def _code(self, pairs: Tensor) -> Tensor:
        """(..., 2) -> (..., D) float32."""
        code = sincos_of(pairs, self.width // 2).flatten(-2)
        return code.nan_to_num(0.0).float()


class RasterViT(VideoViT):
    """Encoder of visible tubelets, without class token; positions are fixed and not stored."""

    classifier_published = False

    def __init__(self, section: RasterViTSection) -> None:
        super().__init__(section)
        self.added = PlaceAndDates(section.width, section)

    @staticmethod
    def positions(width: int, trained: Grid, grid: Grid | None = None) -> Tensor:
        """(1, N, width) positions of the grid ``trained``, resized to ``grid``."""
        table = sincos_series(width, trained).reshape(1, -1, width)
        return resize_clip_positions(table, trained, grid or trained)

    def encode(
        self, batch: Batch, *, noise: Noise | None = None, layers: Collection[int] = ()
    ) -> Features:
        clips = batch.views[self.view]
        frames, height, width = clips.shape[2:]
        grid = self.section.grid_of((frames, height, width))
        added = self.added(batch.views, grid)
        features: Features = self(
            self.tubelets(clips), noise=noise, layers=layers, grid=grid, added=added
        )
        return features
