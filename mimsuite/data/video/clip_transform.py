"""From decoded frames to a uint8 view of fixed size: crop, resize, flip, colour, erase.

All frames of a clip get the same transform. Letters: T frames, C channels, H x W decoded pixels,
h x w view pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mimsuite.config.keys.video import ClipAugmentSection
from mimsuite.data.image import geometry
from mimsuite.data.image.colour import ColourJitter, RandAugment
from mimsuite.data.image.erase import erase
from mimsuite.data.image.geometry import Box
from mimsuite.data.video import clip_geometry
from mimsuite.errors import UserError


class ClipTransform:
    """Makes views from decoded frames (T, H, W, 3) uint8; a view is (3, T, h, w) uint8.

    Args:
        section: the recipe's ``augment:``.
        size: view size (h, w).
    """

    def __init__(self, section: ClipAugmentSection, size: tuple[int, int]) -> None:
        self.section, self.size = section, size
        self.colour = RandAugment(section, min(size)) if section.randaugment else None

    def train(self, frames: np.ndarray, rng: np.random.Generator) -> Tensor:
        """A random view.

        Raises:
            UserError: ``crop: none`` and the frames have another size.
        """
        clip = torch.from_numpy(frames).permute(0, 3, 1, 2)  # (T, C, H, W)
        if self.colour is not None:
            clip = self._coloured(clip, rng)
        height, width = clip.shape[2:]
        box = self._box(height, width, rng)
        clip = resize(clip, box, self.size, self.section.interpolation)
        if rng.random() < self.section.hflip:
            clip = clip.flip(-1)
        if self.section.jitter:
            jitter = ColourJitter(self.section.jitter, rng)
            clip = torch.stack([jitter(frame) for frame in clip])
        if self.section.erase and rng.random() < self.section.erase:
            clip = self._erased(clip, rng)
        return clip.transpose(0, 1)

    def evaluate(self, frames: np.ndarray) -> Tensor:
        """The center crop, after resizing the short side to ``eval_resize``."""
        return self.test(frames, 1)[0]

    def test(self, frames: np.ndarray, crops: int) -> list[Tensor]:
        """``crops`` views, spread along the long side."""
        clip = torch.from_numpy(frames).permute(0, 3, 1, 2)
        short = self.section.eval_resize
        if short is not None and short < max(self.size):
            raise UserError(f"augment.eval_resize={short} is smaller than image_size {self.size}")
        target = self.size if short is None else (short, short)
        height, width = clip.shape[2:]
        covered = geometry.covering(height, width, target)
        whole = geometry.whole(height, width)
        clip = resize(clip, whole, covered, self.section.interpolation)
        boxes = clip_geometry.test_boxes(*covered, self.size, crops)
        return [_cut(clip, box).transpose(0, 1) for box in boxes]

    def _box(self, height: int, width: int, rng: np.random.Generator) -> Box:
        section = self.section
        scale, ratio = section.crop_scale, section.crop_ratio
        if section.crop == "multi-scale":
            return clip_geometry.multi_scale(rng, height, width, self.size)
        if section.crop == "random-resized":
            return geometry.random_resized(rng, height, width, scale, ratio)
        if section.crop == "single-try":
            return geometry.single_try(rng, height, width, scale, ratio)
        if section.crop == "none" and (height, width) != self.size:
            raise UserError(
                f"augment.crop=none takes frames of {self.size[0]} x {self.size[1]} pixels, these "
                f"have {height} x {width}: use resize, or data pack --resize"
            )
        return geometry.whole(height, width)

    def _coloured(self, clip: Tensor, rng: np.random.Generator) -> Tensor:
        assert self.colour is not None
        seed = int(rng.integers(1 << 32))
        frames = [self.colour(frame, np.random.default_rng(seed)) for frame in clip]
        return torch.stack(frames)

    def _erased(self, clip: Tensor, rng: np.random.Generator) -> Tensor:
        """Erase the same rectangle in all frames, with different noise in each."""
        mean, std = (self.section.mean * len(clip), self.section.std * len(clip))
        return erase(clip.flatten(0, 1), rng, mean, std).view_as(clip)


def resize(clip: Tensor, box: Box, size: tuple[int, int], interpolation: str) -> Tensor:
    """Crop a box from all frames and resize it to ``size``, antialiased; (T, C, H, W) uint8."""
    view = _cut(clip, box)
    if view.shape[2:] == size:
        return view
    # Interleaved channels, as decoders return them: torch has fast code for this layout.
    view = view.contiguous(memory_format=torch.channels_last)
    return F.interpolate(view, size, mode=interpolation, antialias=True)


def _cut(clip: Tensor, box: Box) -> Tensor:
    return clip[:, :, box.top : box.top + box.height, box.left : box.left + box.width]
