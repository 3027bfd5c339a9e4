"""`model:`, `target:`, `data:` and `augment:` of methods on clips. Nothing here imports torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mimsuite.config.keys.encoders import AdaptChannels
from mimsuite.config.keys.section import (
    Dimension,
    DropPath,
    FirstBlocks,
    Fraction,
    Key,
    Positive,
    Range,
    Section,
    Size,
    height_width,
)
from mimsuite.config.keys.shared import AugmentSection, DataSection


class VideoViTSection(Section):
    """A transformer of tubelets without class token (VideoMAE, arXiv:2203.12602)."""

    kind: Literal["video-vit"] = "video-vit"
    frames: Annotated[Positive, Key.SIZE | Key.FREE] = 16  # of a clip
    tubelet: Positive = 2  # frames of a token
    image_size: Annotated[Size, Key.SIZE | Key.FREE] = 224  # pixels, one number or [height, width]
    patch_size: Dimension = 16  # pixels
    in_channels: Positive = 3
    adapt_channels: AdaptChannels = None  # of --init-from: mean or repeat; null: refused
    width: Dimension = 768
    depth: Dimension = 12
    heads: Dimension = 12
    mlp_ratio: Annotated[float, Field(gt=0.0)] = 4.0
    drop_path: DropPath = 0.0  # of the last block; grows linearly from 0 in the first
    norm_eps: Annotated[float, Field(gt=0.0)] = 1e-6
    final_norm: Annotated[bool, Key.FREE] = True  # over the output; some weights have none
    layer_scale: Annotated[float, Field(ge=0.0), Key.FREE] = 0.0  # of branches, at first; 0: none
    cosine_attention: bool = False  # normalised queries and keys, a trained scale a head
    # [frames, height, width] that weights were trained at, where they are others: the fixed
    # positions of that size are resized.
    trained_size: Annotated[tuple[Positive, Positive, Positive] | None, Key.FREE] = None

    @property
    def size(self) -> tuple[int, int, int]:
        """(frames, height, width) of a clip."""
        return (self.frames, *height_width(self.image_size))

    @property
    def grid(self) -> tuple[int, int, int]:
        """Tokens along time, per column and per row."""
        return self.grid_of(self.size)

    def grid_of(self, size: tuple[int, int, int]) -> tuple[int, int, int]:
        """The grid of clips of another (frames, height, width)."""
        frames, height, width = size
        return frames // self.tubelet, height // self.patch_size, width // self.patch_size

    @model_validator(mode="after")
    def _fits(self) -> VideoViTSection:
        for frames, height, width in (self.size, self.trained_size or self.size):
            if height % self.patch_size or width % self.patch_size:
                raise ValueError(
                    f"patch_size {self.patch_size} does not divide image_size {height} x {width}"
                )
            if frames % self.tubelet:
                raise ValueError(f"tubelet {self.tubelet} does not divide frames {frames}")
        if self.width % self.heads:
            raise ValueError(f"heads {self.heads} does not divide width {self.width}")
        return self


class ClipDecoderSection(Section):
    """A light transformer that rebuilds tokens of a clip."""

    width: Dimension = 384
    depth: Dimension = 4
    heads: Dimension = 6
    mlp_ratio: Annotated[float, Field(gt=0.0)] = 4.0

    @model_validator(mode="after")
    def _fits(self) -> ClipDecoderSection:
        if self.width % self.heads:
            raise ValueError(f"heads {self.heads} does not divide width {self.width}")
        return self


class ClipAutoencoderSection(Section):
    """`model:` an encoder of the visible tubelets and a decoder of the hidden ones."""

    encoder: VideoViTSection = VideoViTSection()
    decoder: ClipDecoderSection = ClipDecoderSection()
    freeze: FirstBlocks = 0  # keep the embeddings and so many first blocks as they are


class ClipTargetSection(Section):
    """`target:` the pixels of each hidden tubelet."""

    kind: Literal["tubelets"] = "tubelets"
    normalize: bool  # each tubelet and colour channel to zero mean and unit variance


class ClipDataSection(DataSection):
    """`data:` of clips."""

    # What decodes; auto: decord, and PyAV or torchcodec for a file that it cannot read.
    reader: Literal["auto", "decord", "torchcodec", "pyav"] = "auto"


ClipCrop = Literal["multi-scale", "random-resized", "single-try", "resize", "none"]


class SecondClipSection(Section):
    """A view `clip2` of the frames of `clip`, with draws of its own; keys as beside it."""

    crop: ClipCrop = "random-resized"
    crop_scale: Range = (0.2, 1.0)  # fraction of the frame's area
    crop_ratio: Range = (3 / 4, 4 / 3)  # width / height
    hflip: Fraction = 0.5
    jitter: Fraction = 0.0  # of brightness, contrast and saturation, the same for all frames


class ClipAugmentSection(AugmentSection):
    """`augment:` which frames of a video, and which part of them, become a clip."""

    # multi-scale: one of a few sizes at one of 13 places (VideoMAE's pretraining).
    crop: ClipCrop = "multi-scale"  # type: ignore[assignment]
    interpolation: Literal["bicubic", "bilinear"] = "bilinear"
    hflip: Fraction = 0.0
    # clip: `stride` frames apart from a random start; dense: evenly over as long a stretch, as in
    # fine-tuning; segments: one frame of each of `frames` equal parts of the whole video; still:
    # one frame, held, which shows no motion.
    sampling: Literal["clip", "dense", "segments", "still"] = "clip"
    stride: Positive = 4  # frames from one to the next
    temporal_jitter: bool = False  # of each frame within its stride
    repeats: Positive = 1  # views cut from the frames of one decoding (repeated augmentation)
    second_view: SecondClipSection | None = None  # type: ignore[assignment]  # beside each of them
    test_clips: Positive = 1  # parts of a video that a trained classifier is tested on
    test_crops: Positive = 1  # places of each
