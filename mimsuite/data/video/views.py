"""Views of videos: ``clip`` (R, C, T, h, w), uint8 until it is on the device; in training also
``clip2``, if ``augment.second_view`` is set.

A video is decoded once and R views are made from its frames (repeated augmentation, Hoffer et al.,
arXiv:1901.09335). Sources, sample order and lanes count videos; on the device a batch of B videos
becomes R * B clips, all first views before all second ones. The row of a clip, which keys its
masks, is ``row of the video * R + r``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import chain

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool3d

from mimsuite.batch import Batch
from mimsuite.config.keys.section import height_width
from mimsuite.config.keys.shared import Recipe
from mimsuite.config.keys.video import ClipAugmentSection, SecondClipSection, VideoViTSection
from mimsuite.data.image.normalize import Normalize
from mimsuite.data.source import Source
from mimsuite.data.video import clip_indices
from mimsuite.data.video.clip_transform import ClipTransform
from mimsuite.data.video.encoded import EncodedVideo
from mimsuite.data.views import Views
from mimsuite.errors import UserError


class VideoViews(Views):
    """Views by the recipe's ``augment:``, at the length and size of ``model.encoder``.

    Args:
        testing: evaluate on ``test_clips`` x ``test_crops`` views per video instead of one.
    """

    main = "clip"

    def __init__(self, recipe: Recipe, testing: bool = False) -> None:
        encoder: VideoViTSection = recipe.model.encoder
        self.augment: ClipAugmentSection = recipe.augment  # type: ignore[assignment]
        self.reader: str = recipe.data.reader  # type: ignore[attr-defined]
        self.frames, self.channels = encoder.frames, encoder.in_channels
        self.size = height_width(encoder.image_size)
        self.recipe, self.testing = recipe, testing
        self._transform = ClipTransform(self.augment, self.size)
        self._second = _second(self.augment, self.size)
        self.joined: int = getattr(self.augment, "joined_clips", 1)  # clips of a view
        if testing:
            self.rows = self.augment.test_clips * self.augment.test_crops

    def train(self, sample: EncodedVideo, rng: np.random.Generator) -> dict[str, Tensor]:
        """``repeats`` random views per view name; all are made from one random clip."""
        frames = sample.read_timed(lambda total, rate: self._indices(total, rate, rng), self.reader)
        clips = np.split(frames, self.joined)
        views = [
            torch.cat([self._transform.train(clip, rng) for clip in clips], dim=1)
            for _ in range(self.augment.repeats)
        ]
        found = {"clip": torch.stack(views)}
        if self._second is not None:
            others = [self._second.train(frames, rng) for _ in views]
            found["clip2"] = torch.stack(others)
        return found

    def evaluate(self, sample: EncodedVideo) -> dict[str, Tensor]:
        """The central clip, or all test views."""
        if not self.testing:
            frames = sample.read_timed(
                lambda total, rate: self._indices(total, rate, None), self.reader
            )
            clips = np.split(frames, self.joined)
            view = torch.cat([self._transform.evaluate(clip) for clip in clips], dim=1)
            return {"clip": view[None]}
        frames = sample.read_timed(
            lambda total, rate: [*chain(*self._test_clips(total, rate))], self.reader
        )
        views = np.split(frames, self.augment.test_clips)
        return {"clip": torch.stack([crop for view in views for crop in self._crops(view)])}

    def _crops(self, frames: np.ndarray) -> list[Tensor]:
        """The test crops of a view, whose clips are joined along time."""
        clips = np.split(frames, self.joined)
        crops = [self._transform.test(clip, self.augment.test_crops) for clip in clips]
        return [torch.cat(one, dim=1) for one in zip(*crops, strict=True)]

    def test(self) -> Views:
        return VideoViews(self.recipe, testing=True)

    def normalizer(self, device: torch.device | str) -> Callable[[Batch], Batch]:
        return ClipNormalize(self.augment, device)

    def raw(self, batch: Batch) -> Tensor:
        """Clips averaged to 8 x 8 pixels and 8 time steps."""
        clips = batch.views["clip"].float()
        return adaptive_avg_pool3d(clips, (min(8, clips.shape[2]), 8, 8)).flatten(1)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        names = ["clip"] if self._second is None else ["clip", "clip2"]
        return {name: (self.channels, self.joined * self.frames, *self.size) for name in names}

    def check(self, source: Source) -> None:
        """Compare the channels of the model and of ``augment.mean``."""
        if self.channels != 3:
            raise UserError(f"model.encoder.in_channels={self.channels}: video is read as rgb")
        if len(self.augment.mean) not in (1, 3):
            raise UserError(f"augment.mean has {len(self.augment.mean)} values for rgb video")

    def _stride(self, rate: float) -> int:
        """Distance of sampled frames in a video of ``rate`` frames a second."""
        fps = self.augment.fps
        return self.augment.stride if fps is None else clip_indices.stride_at(rate, fps)

    def _indices(self, total: int, rate: float, rng: np.random.Generator | None) -> list[int]:
        augment, stride = self.augment, self._stride(rate)
        if augment.sampling == "segments":
            return clip_indices.segments(total, self.frames, rng)
        if augment.sampling == "still":
            return clip_indices.still(total, self.frames, rng)
        if self.joined > 1:
            return [*chain(*clip_indices.spread(total, self.frames, stride, self.joined, rng))]
        if augment.sampling == "dense":
            return clip_indices.dense(total, self.frames, stride, rng)
        return clip_indices.clip(total, self.frames, stride, rng, augment.temporal_jitter)

    def _test_clips(self, total: int, rate: float) -> list[list[int]]:
        augment = self.augment
        if augment.sampling == "segments":
            return clip_indices.test_segments(total, self.frames, augment.test_clips)
        if augment.sampling == "still":
            return clip_indices.test_stills(total, self.frames, augment.test_clips)
        stride = self._stride(rate)
        if self.joined > 1:
            return clip_indices.spread(total, self.frames, stride, self.joined, None)
        return clip_indices.test_clips(total, self.frames, stride, augment.test_clips)


class ClipNormalize(Normalize):
    """Normalises clips and makes each view a row of the batch; see the module's docstring."""

    def __call__(self, batch: Batch) -> Batch:
        """Each view (B, R, C, T, h, w) -> (R * B, C, T, h, w)."""
        batch = batch.to(self.device)
        repeats = next(iter(batch.views.values())).shape[1]
        flat = {name: view.transpose(0, 1).flatten(0, 1) for name, view in batch.views.items()}
        host = batch.host_index
        return super().__call__(
            replace(
                batch,
                views=flat,
                index=_repeated(batch.index, repeats),
                keys=batch.keys * repeats,
                label=None if batch.label is None else torch.cat([batch.label] * repeats),
                host_index=None if host is None else _repeated(host, repeats),
            )
        )


def _second(section: ClipAugmentSection, size: tuple[int, int]) -> ClipTransform | None:
    """The transform of ``clip2``; mean, std and interpolation are those of ``clip``."""
    if section.second_view is None:
        return None
    changed = {name: getattr(section.second_view, name) for name in SecondClipSection.model_fields}
    return ClipTransform(section.model_copy(update=changed), size)


def _repeated(index: Tensor, repeats: int) -> Tensor:
    """(R * B,) row numbers of the views, for samples in rows (B,)."""
    numbers = torch.arange(repeats, device=index.device)
    return (index * repeats + numbers[:, None]).flatten()
