"""From a decoded image to a view of fixed size, still uint8: crop, resize, flip, colour, erase.

Cropping comes before resizing and copies nothing, so only the pixels that stay are processed.
torch's antialiased uint8 resize is within 0.02 grey levels of PIL's on average and takes a third of
the time. Conversion to float and normalisation happen on the device (:mod:`normalize`).
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from mimsuite.config.keys.section import height_width
from mimsuite.config.keys.shared import AugmentSection
from mimsuite.data.image import geometry
from mimsuite.data.image.colour import ColourJitter, RandAugment
from mimsuite.data.image.erase import erase
from mimsuite.data.image.geometry import Box
from mimsuite.errors import UserError


class TrainTransform:
    """Random view of an image; all randomness comes from the generator passed in.

    Args:
        section: the recipe's ``augment:``.
        size: view size in pixels, one number or (height, width).
    """

    def __init__(self, section: AugmentSection, size: int | tuple[int, int]) -> None:
        self.section, self.size = section, height_width(size)
        self.colour = RandAugment(section, min(self.size)) if section.randaugment else None

    def __call__(self, image: Tensor, rng: np.random.Generator) -> Tensor:
        """(C, H, W) -> (C, h, w) of the same dtype, uint8 or float32.

        Raises:
            UserError: ``crop: none`` and the image has another size.
        """
        return self.views(image, rng)["image"]

    def views(self, image: Tensor, rng: np.random.Generator) -> dict[str, Tensor]:
        """``image``, and ``second_view`` under its name: the same crop with the same flip and
        colour, but without RandAugment and erasing. Raises as ``__call__``.
        """
        section = self.section
        height, width = image.shape[-2:]
        box = self.box(height, width, rng)
        found = {"image": resize(image, box, self.size, section.interpolation)}
        if (second := section.second_view) is not None:
            size = height_width(second.image_size)
            found[second.name] = resize(image, box, size, second.interpolation)
        if rng.random() < section.hflip:
            found = {name: view.flip(-1) for name, view in found.items()}
        if section.jitter:
            jitter = ColourJitter(section.jitter, rng)
            found = {name: jitter(view) for name, view in found.items()}
        view = found["image"]
        if self.colour is not None:
            view = self.colour(view, rng)
        if section.erase and rng.random() < section.erase:
            view = erase(view, rng, section.mean, section.std)
        return {**found, "image": view}

    def box(self, height: int, width: int, rng: np.random.Generator) -> Box:
        """The crop box for an image of this size; the first random draw of a view."""
        section = self.section
        if section.crop == "random-resized":
            return geometry.random_resized(
                rng, height, width, section.crop_scale, section.crop_ratio
            )
        if section.crop == "single-try":
            return geometry.single_try(rng, height, width, section.crop_scale, section.crop_ratio)
        if section.crop == "none" and (height, width) != self.size:
            raise UserError(
                f"augment.crop=none takes images of {self.size[0]} x {self.size[1]} pixels, this "
                f"one has {height} x {width}: use resize, or data pack --resize"
            )
        return geometry.whole(height, width)


class EvalTransform:
    """The deterministic view: resize to cover, then crop the centre.

    Args:
        section: ``eval_resize`` is the short side before the crop; None: just covers the view.
        size: view size in pixels.

    Raises:
        UserError: ``eval_resize`` is smaller than the view.
    """

    def __init__(self, section: AugmentSection, size: int | tuple[int, int]) -> None:
        self.size, self.interpolation = height_width(size), section.interpolation
        short = section.eval_resize
        if short is not None and short < max(self.size):
            raise UserError(f"augment.eval_resize={short} is smaller than image_size {self.size}")
        self.cover = self.size if short is None else (short, short)

    def __call__(self, image: Tensor) -> Tensor:
        """(C, H, W) -> (C, h, w) of the same dtype."""
        height, width = image.shape[-2:]
        covered = geometry.covering(height, width, self.cover)
        image = resize(image, geometry.whole(height, width), covered, self.interpolation)
        top, left, height, width = geometry.centre(*covered, *self.size)
        return image[:, top : top + height, left : left + width]


def resize(image: Tensor, box: Box, size: tuple[int, int], interpolation: str) -> Tensor:
    """Crop a box and resize it to ``size``, antialiased; (C, H, W) -> (C, h, w)."""
    top, left, height, width = box
    view = image[:, top : top + height, left : left + width]
    if (height, width) == size:
        return view
    if interpolation == "lanczos":
        return _lanczos(view, size)
    view = view[None]
    if view.dtype == torch.uint8 and image.stride(0) == 1 and image.shape[0] == 3:
        # Decoders return interleaved channels, for which torch has fast code. A crop's rows are not
        # contiguous, so torch would not recognise the layout. The pixels are the same.
        view = view.contiguous(memory_format=torch.channels_last)
    # Bicubic overshoots at edges in float32; torch clips uint8.
    return F.interpolate(view, size, mode=interpolation, antialias=True)[0]


def _lanczos(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Lanczos resize by PIL, channel by channel: torch has no Lanczos filter."""
    filtered = [
        np.array(Image.fromarray(channel.numpy()).resize(size[::-1], Image.Resampling.LANCZOS))
        for channel in image
    ]
    return torch.from_numpy(np.stack(filtered))


def channels_match(image: Tensor, expected: int | None, key: str) -> None:
    """Check an image's channels against the model's.

    Raises:
        UserError: the numbers of channels differ.
    """
    if expected is not None and image.shape[0] != expected:
        raise UserError(
            f"{key} has {image.shape[0]} channels, the model takes in_channels={expected}: set "
            f"data.channels, or model.encoder.in_channels"
        )


def stack(images: list[Tensor]) -> Tensor:
    """(B, C, h, w); if any image is float32, all are: uint8 is scaled to [0, 1]."""
    if len({image.dtype for image in images}) > 1:
        images = [unit(image) for image in images]
    return torch.stack(images)


def unit(image: Tensor) -> Tensor:
    """uint8 scaled to float32 in [0, 1]; float32 as it is."""
    return image.float() / 255 if image.dtype == torch.uint8 else image
