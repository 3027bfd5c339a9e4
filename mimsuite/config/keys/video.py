"""`model:`, `target:`, `data:` and `augment:` of video methods. Nothing here imports torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Tag, model_validator

from mimsuite.config.keys.encoders import AdaptChannels, Inflate
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
    by_kind,
    height_width,
    require_divides,
    require_patches,
)
from mimsuite.config.keys.shared import AugmentSection, DataSection


class ClipEncoderSection(Section):
    """Keys that all encoders of tubelets share."""

    kind: str
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

    def _require_whole_tokens(self, size: tuple[int, int, int]) -> None:
        require_patches(self.patch_size, size[1:])
        require_divides("tubelet", self.tubelet, "frames", size[0])

    @model_validator(mode="after")
    def _fits(self) -> ClipEncoderSection:
        self._require_whole_tokens(self.size)
        require_divides("heads", self.heads, "width", self.width)
        return self


class VideoViTSection(ClipEncoderSection):
    """A transformer of tubelets without class token (VideoMAE, arXiv:2203.12602)."""

    kind: Literal["video-vit"] = "video-vit"
    inflate: Inflate = None  # --init-from an image transformer: mean, centre; null: refuse
    layer_scale: Annotated[float, Field(ge=0.0), Key.FREE] = 0.0  # initial branch scale; 0: none
    cosine_attention: bool = False  # normalise queries and keys; one trained scale per head
    # [frames, height, width] of the clips that the weights were trained on, if different: the fixed
    # positions of that size are resized. null: the same.
    trained_size: Annotated[tuple[Positive, Positive, Positive] | None, Key.FREE] = None

    @model_validator(mode="after")
    def _trained_size_fits(self) -> VideoViTSection:
        self._require_whole_tokens(self.trained_size or self.size)
        return self


ClipPositions = Literal["rotary", "sin-cos"]
_NARROWEST_HEAD = 12  # numbers of a head that turn with time, row and column as published


class ClipViTSection(ClipEncoderSection):
    """A plain transformer of tubelets without class token (V-JEPA, arXiv:2404.08471,
    arXiv:2506.09985). With `frames` and `tubelet` 1 it encodes image patches."""

    kind: Literal["clip-vit"] = "clip-vit"
    # rotary: rotate queries and keys by time, row and column; sin-cos: add a fixed table
    positions: ClipPositions = "rotary"
    # sin-cos: true gives time, rows and columns equal width; false gives time half of it
    even_positions: bool = True

    @property
    def still(self) -> bool:
        """Whether samples are images."""
        return self.frames == self.tubelet == 1

    @model_validator(mode="after")
    def _heads_turn(self) -> ClipViTSection:
        require_rotary_heads(self.positions, self.width, self.heads)
        return self


def require_rotary_heads(positions: str, width: int, heads: int) -> None:
    """Refuse, with ``ValueError``, heads that are too narrow for three rotary axes."""
    if positions == "rotary" and width // heads < _NARROWEST_HEAD:
        raise ValueError(
            f"rotary positions need heads of width {_NARROWEST_HEAD}, and {heads} heads of width "
            f"{width} have {width // heads}: take fewer heads"
        )


# Any encoder of clips, selected by `kind`; for methods that train any pretrained encoder.
AnyClipEncoderSection = Annotated[
    Annotated[VideoViTSection, Tag("video-vit")] | Annotated[ClipViTSection, Tag("clip-vit")],
    by_kind("video-vit"),
]


class ClipDecoderSection(Section):
    """A light transformer that reconstructs hidden tubelets."""

    width: Dimension = 384
    depth: Dimension = 4
    heads: Dimension = 6
    mlp_ratio: Annotated[float, Field(gt=0.0)] = 4.0

    @model_validator(mode="after")
    def _fits(self) -> ClipDecoderSection:
        require_divides("heads", self.heads, "width", self.width)
        return self


class ClipPredictorSection(ClipDecoderSection):
    """A narrow transformer that predicts the latents of hidden tubelets."""

    depth: Dimension = 12
    heads: Dimension = 12
    # Number of trained mask tokens; released weights hold more than they use.
    mask_tokens: Positive = 1
    # Mask token of each set of blocks. first: the first one for all sets; set: one per set
    mask_token_by: Literal["first", "set"] = "first"


class ClipPredictiveSection(Section):
    """`model:` an encoder of tubelets, its momentum copy, and a predictor of latents."""

    encoder: ClipViTSection = ClipViTSection()
    predictor: ClipPredictorSection = ClipPredictorSection()
    # Divide the initial output weights of block i by sqrt(2 i)
    scaled_start: bool = True

    @model_validator(mode="after")
    def _heads_turn(self) -> ClipPredictiveSection:
        require_rotary_heads(self.encoder.positions, self.predictor.width, self.predictor.heads)
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
    # Sampled frames a second, which set the stride by the rate in each file; null: stride holds
    fps: Annotated[float, Field(gt=0.0)] | None = None
    temporal_jitter: bool = False  # shift each frame randomly within its stride
    repeats: Positive = 1  # views cut from the frames of one decoding (repeated augmentation)
    second_view: SecondClipSection | None = None  # type: ignore[assignment]  # beside each clip
    test_clips: Positive = 1  # clips per video, over which a trained classifier's test averages
    test_crops: Positive = 1  # crops per test clip


class LabelledClipAugmentSection(ClipAugmentSection):
    """`augment:` of classifiers, whose views may hold several clips of a video."""

    # Clips of a view, one from each of so many parts of the video. They are cropped and encoded
    # apart, and their tokens pooled together.
    joined_clips: Positive = 1

    @model_validator(mode="after")
    def _spread(self) -> LabelledClipAugmentSection:
        if self.joined_clips > 1 and (self.sampling != "dense" or self.test_clips > 1):
            raise ValueError("joined_clips > 1 needs sampling=dense and test_clips=1")
        return self
