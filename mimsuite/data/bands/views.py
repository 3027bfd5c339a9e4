"""Views of rasters: ``clip`` (R, C, T, h, w), windows of one reading, R = 1 when evaluated, and
``valid`` of the same shape, which pixels were observed; ``place`` (R, 2) latitude and longitude and
``dates`` (R, T, 2) year and day of the year, where the encoder takes them, NaN where unknown.

On its way to the device a batch of B places becomes one of R * B windows, as clips of a video do;
see :mod:`mimsuite.data.video.views`. What was not observed is 0 after normalisation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool3d

from mimsuite.batch import Batch
from mimsuite.config.keys.bands import RasterAugmentSection, RasterDataSection, RasterViTSection
from mimsuite.config.keys.shared import Recipe
from mimsuite.data.bands.series import Box, Series, StoredSeries
from mimsuite.data.damage import CorruptSample
from mimsuite.data.source import Source
from mimsuite.data.video.views import ClipNormalize
from mimsuite.data.views import BY_STATISTICS, Views
from mimsuite.errors import UserError

_TRIES = 4  # windows that are drawn until one holds a pixel that was observed


class RasterViews(Views):
    """Windows by the recipe's ``augment:``, of the size of ``model.encoder``."""

    main = "clip"
    scaled_by = BY_STATISTICS

    def __init__(self, recipe: Recipe) -> None:
        encoder: RasterViTSection = recipe.model.encoder
        augment: object = recipe.augment
        data: object = recipe.data
        assert isinstance(augment, RasterAugmentSection)
        assert isinstance(data, RasterDataSection)
        self.augment, self.bands, self.channels = augment, data.bands, encoder.in_channels
        self.frames, *self.sides = encoder.size
        self.location, self.dates = encoder.location, encoder.dates

    def train(self, sample: StoredSeries, rng: np.random.Generator) -> dict[str, Tensor]:
        """``repeats`` random windows of random dates, in order, each turned by its own draws.

        Raises:
            CorruptSample: it cannot be read, or has other bands or fewer dates than the model.
        """
        with sample.open(self.bands) as series:
            self._check(series)
            views = [self._random(series, rng) for _ in range(self.augment.repeats)]
        return {name: torch.stack([view[name] for view in views]) for name in views[0]}

    def evaluate(self, sample: StoredSeries) -> dict[str, Tensor]:
        """The middle window, of dates spread evenly; raises as :meth:`train`."""
        with sample.open(self.bands) as series:
            self._check(series)
            last = len(series.rasters) - 1
            dates = np.linspace(0, last, self.frames).round().astype(int).tolist()
            box = self._box([(a - b) // 2 for a, b in zip(series.size, self.sides, strict=True)])
            view = self._view(series, dates, box)
        return {name: part[None] for name, part in view.items()}

    def normalizer(self, device: torch.device | str) -> Callable[[Batch], Batch]:
        return RasterNormalize(self.augment, device)  # type: ignore[arg-type]  # mean and std

    def shapes(self) -> dict[str, tuple[int, ...]]:
        shape = (self.channels, self.frames, *self.sides)
        found: dict[str, tuple[int, ...]] = {"clip": shape, "valid": shape}
        found |= {"place": (2,)} if self.location else {}
        return found | ({"dates": (self.frames, 2)} if self.dates else {})

    def raw(self, batch: Batch) -> Tensor:
        """(B, D): windows averaged to 8 x 8 pixels, each date and band."""
        clips = batch.views["clip"].float()
        return adaptive_avg_pool3d(clips, (min(8, clips.shape[2]), 8, 8)).flatten(1)

    def require_fit(self, sample: StoredSeries) -> None:
        """Refuse samples of other bands or fewer dates before training starts."""
        try:
            with sample.open(self.bands) as series:
                self._check(series)
        except CorruptSample as fault:
            if fault.kind in ("bands", "dates"):
                raise UserError(str(fault)) from None

    def check(self, source: Source) -> None:
        if self.bands is not None and len(self.bands) != self.channels:
            raise UserError(
                f"data.bands names {len(self.bands)} bands, the model takes "
                f"model.encoder.in_channels={self.channels}: make them equal"
            )
        if len(self.augment.mean) not in (1, self.channels):
            raise UserError(
                f"augment.mean has {len(self.augment.mean)} values for {self.channels} bands: "
                f"`mimsuite data stats` prints one a band"
            )
        if max(self.augment.shown) > self.channels >= 3:
            raise UserError(f"augment.shown {self.augment.shown}: there are {self.channels} bands")

    def _check(self, series: Series) -> None:
        if len(series.names) != self.channels:
            raise CorruptSample(
                "bands",
                f"{len(series.names)} bands ({', '.join(series.names)}), the model takes "
                f"{self.channels}: set data.bands, or model.encoder.in_channels",
            )
        if len(series.rasters) < self.frames:
            raise CorruptSample(
                "dates",
                f"{len(series.rasters)} dates, the model takes {self.frames}: set "
                f"model.encoder.frames, and model.encoder.tubelet to divide it",
            )

    def _random(self, series: Series, rng: np.random.Generator) -> dict[str, Tensor]:
        dates = sorted(rng.choice(len(series.rasters), self.frames, replace=False).tolist())
        for _ in range(_TRIES):
            corner = [self._corner(a, b, rng) for a, b in zip(series.size, self.sides, strict=True)]
            view = self._view(series, dates, self._box(corner))
            if view["valid"].any():
                break
        return self._augmented(view, rng)

    def _corner(self, length: int, side: int, rng: np.random.Generator) -> int:
        """Uniform over the windows inside; a raster that is smaller lies in the middle."""
        return int(rng.integers(0, length - side + 1)) if length > side else (length - side) // 2

    def _box(self, corner: Sequence[int]) -> Box:
        return corner[0], corner[1], self.sides[0], self.sides[1]

    def _view(self, series: Series, dates: Sequence[int], box: Box) -> dict[str, Tensor]:
        values, valid = series.window(dates, box)
        found = {"clip": torch.from_numpy(values), "valid": torch.from_numpy(valid).byte()}
        if self.location:
            found["place"] = torch.tensor(series.place(box))
        if self.dates:
            found["dates"] = torch.tensor(series.days(dates), dtype=torch.float32)
        return found

    def _augmented(self, view: dict[str, Tensor], rng: np.random.Generator) -> dict[str, Tensor]:
        augment = self.augment
        maps = {name: view[name] for name in ("clip", "valid")}
        if rng.random() < augment.hflip:
            maps = {name: part.flip(-1) for name, part in maps.items()}
        if rng.random() < augment.vflip:
            maps = {name: part.flip(-2) for name, part in maps.items()}
        if rng.random() < augment.rotate:
            turns = int(rng.integers(1, 4))
            maps = {name: part.rot90(turns, (-2, -1)) for name, part in maps.items()}
        maps = {name: part.contiguous() for name, part in maps.items()}
        if augment.band_dropout:
            lost = rng.random(self.channels) < augment.band_dropout
            lost[int(rng.integers(self.channels))] = False  # one stays
            maps["valid"][torch.from_numpy(lost)] = 0
        found = {**view, **maps}
        for name, share in (("place", augment.location_dropout), ("dates", augment.date_dropout)):
            if rng.random() < share and name in found:
                found[name] = torch.full_like(found[name], torch.nan)
        return found


class RasterNormalize(ClipNormalize):
    """Normalises windows, and sets what was not observed to 0."""

    def __call__(self, batch: Batch) -> Batch:
        batch = super().__call__(batch)
        clip = batch.views["clip"] * batch.views["valid"]
        return replace(batch, views={**batch.views, "clip": clip})

    def _view(self, view: Tensor) -> Tensor:
        is_window = view.ndim == 5 and view.dtype != torch.uint8
        return super()._view(view) if is_window else view
