"""`model:`, `target:`, `data:` and `augment:` of video methods. Nothing here imports torch."""

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
    frames: Annotated[Positive, Key.SIZE | Key.FREE] = 16  # frames per clip
    tubelet: Positive = 2  # frames per token
    image_size: Annotated[Size, Key.SIZE | Key.FREE] = 224  # pixels, one number or [height, width]
    patch_size: Dimension = 16  # pixels
    in_channels: Positive = 3
    adapt_channels: AdaptChannels = None  # --init-from, other channels: mean, repeat; null: refuse
    width: Dimension = 768
    depth: Dimension = 12
    heads: Dimension = 12
    mlp_ratio: Annotated[float, Field(gt=0.0)] = 4.0
    drop_path: DropPath = 0.0  # rate in the last block; rises linearly from 0 in the first
    norm_eps: Annotated[float, Field(gt=0.0)] = 1e-6
    final_norm: Annotated[bool, Key.FREE] = True  # norm on the output; some weights have none
    layer_scale: Annotated[float, Field(ge=0.0), Key.FREE] = 0.0  # initial branch scale; 0: none
    cosine_attention: bool = False  # normalise queries and keys; one trained scale per head
    # [frames, height, width] of the clips that the weights were trained on, if different: the fixed
    # positions of that size are resized. null: the same.
    trained_size: Annotated[tuple[Positive, Positive, Positive] | None, Key.FREE] = None

    @property
    def size(self) -> tuple[int, int, int]:
        """(frames, height, width) of a clip."""
        return (self.frames, *height_width(self.image_size))

    @property
    def grid(self) -> tuple[int, int, int]:
        """Tokens along time, height and width."""
        return self.grid_of(self.size)

    def grid_of(self, size: tuple[int, int, int]) -> tuple[int, int, int]:
        """The grid of tokens for clips of size (frames, height, width)."""
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
    """A light transformer that reconstructs hidden tubelets."""

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
    """`model:` an encoder of the visible tubelets and a decoder of the hidden tubelets."""

    encoder: VideoViTSection = VideoViTSection()
    decoder: ClipDecoderSection = ClipDecoderSection()
    freeze: FirstBlocks = 0  # freeze the embeddings and this many first blocks; 0: train all


class ClipTargetSection(Section):
    """`target:` the pixels of each hidden tubelet."""

    kind: Literal["tubelets"] = "tubelets"
    normalize: bool  # each tubelet and colour channel to zero mean and unit variance


class ClipDataSection(DataSection):
    """`data:` of videos."""

    # Video decoder. auto: decord, or PyAV or torchcodec for files that decord cannot read.
    reader: Literal["auto", "decord", "torchcodec", "pyav"] = "auto"


ClipCrop = Literal["multi-scale", "random-resized", "single-try", "resize", "none"]


class SecondClipSection(Section):
    """A second view `clip2` of the frames of `clip`, with its own draws; keys as in `augment`."""

    crop: ClipCrop = "random-resized"
    crop_scale: Range = (0.2, 1.0)  # fraction of the frame's area
    crop_ratio: Range = (3 / 4, 4 / 3)  # width / height
    hflip: Fraction = 0.5
    jitter: Fraction = 0.0  # brightness, contrast, saturation: factors 1 +- this, one per clip


class ClipAugmentSection(AugmentSection):
    """`augment:` sampling of a clip's frames, and the crop and flip of the clip."""

    # multi-scale: one of a few sizes at one of 13 positions (VideoMAE's pretraining).
    crop: ClipCrop = "multi-scale"  # type: ignore[assignment]
    interpolation: Literal["bicubic", "bilinear"] = "bilinear"
    hflip: Fraction = 0.0
    # clip: frames `stride` apart from a random start. dense: spread evenly over the same duration,
    # as in fine-tuning. segments: one frame from each of `frames` equal parts of the whole video.
    # still: one frame repeated, without motion.
    sampling: Literal["clip", "dense", "segments", "still"] = "clip"
    stride: Positive = 4  # distance of sampled frames, in frames
    temporal_jitter: bool = False  # shift each frame randomly within its stride
    repeats: Positive = 1  # views cut from the frames of one decoding (repeated augmentation)
    second_view: SecondClipSection | None = None  # type: ignore[assignment]  # beside each clip
    test_clips: Positive = 1  # clips per video, over which a trained classifier's test averages
    test_crops: Positive = 1  # crops per test clip
