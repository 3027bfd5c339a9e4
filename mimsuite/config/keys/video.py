"""`model:`, `target:`, `data:` and `augment:` of methods on clips. Nothing here imports torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Tag, model_validator

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
    by_kind,
    height_width,
)
from mimsuite.config.keys.shared import AugmentSection, DataSection


class ClipEncoderSection(Section):
    """What all encoders of tubelets have."""

    kind: str
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

    def _require_whole_tokens(self, size: tuple[int, int, int]) -> None:
        frames, height, width = size
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f"patch_size {self.patch_size} does not divide image_size {height} x {width}"
            )
        if frames % self.tubelet:
            raise ValueError(f"tubelet {self.tubelet} does not divide frames {frames}")

    @model_validator(mode="after")
    def _fits(self) -> ClipEncoderSection:
        self._require_whole_tokens(self.size)
        if self.width % self.heads:
            raise ValueError(f"heads {self.heads} does not divide width {self.width}")
        return self


class VideoViTSection(ClipEncoderSection):
    """A transformer of tubelets without class token (VideoMAE, arXiv:2203.12602)."""

    kind: Literal["video-vit"] = "video-vit"
    layer_scale: Annotated[float, Field(ge=0.0), Key.FREE] = 0.0  # of branches, at first; 0: none
    cosine_attention: bool = False  # normalised queries and keys, a trained scale a head
    # [frames, height, width] that weights were trained at, where they are others: the fixed
    # positions of that size are resized.
    trained_size: Annotated[tuple[Positive, Positive, Positive] | None, Key.FREE] = None

    @model_validator(mode="after")
    def _trained_size_fits(self) -> VideoViTSection:
        self._require_whole_tokens(self.trained_size or self.size)
        return self


ClipPositions = Literal["rotary", "sin-cos"]
_NARROWEST_HEAD = 12  # numbers of a head that turn with time, row and column as published


class ClipViTSection(ClipEncoderSection):
    """A plain transformer of tubelets, or of the patches of an image where `frames` and `tubelet`
    are 1, without class token (V-JEPA, arXiv:2404.08471, arXiv:2506.09985)."""

    kind: Literal["clip-vit"] = "clip-vit"
    # rotary: queries and keys turn with time, row and column; sin-cos: a fixed table is added
    positions: ClipPositions = "rotary"
    # Of sin-cos: as many numbers for time as for rows and columns; else half of all for time
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
    """Refuse, with ``ValueError``, heads too narrow to turn with three axes."""
    if positions == "rotary" and width // heads < _NARROWEST_HEAD:
        raise ValueError(
            f"rotary positions need heads of {_NARROWEST_HEAD} numbers, and {heads} heads of width "
            f"{width} have {width // heads}: take fewer heads"
        )


# Any encoder of clips, told apart by its `kind`; for methods that train whatever was pretrained.
AnyClipEncoderSection = Annotated[
    Annotated[VideoViTSection, Tag("video-vit")] | Annotated[ClipViTSection, Tag("clip-vit")],
    by_kind("video-vit"),
]


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


class ClipPredictorSection(ClipDecoderSection):
    """A narrow transformer that predicts latents of hidden tubelets."""

    depth: Dimension = 12
    heads: Dimension = 12
    # Trained vectors that stand for what is asked for; released weights hold more than they use.
    mask_tokens: Positive = 1
    # Which of them a set of masks takes. first: all sets the first one; set: each its own
    mask_token_by: Literal["first", "set"] = "first"


class ClipPredictiveSection(Section):
    """`model:` an encoder of tubelets, twice, and a predictor of its latents."""

    encoder: ClipViTSection = ClipViTSection()
    predictor: ClipPredictorSection = ClipPredictorSection()
    # Begin with the outputs of block i divided by the root of 2 i
    scaled_start: bool = True

    @model_validator(mode="after")
    def _heads_turn(self) -> ClipPredictiveSection:
        require_rotary_heads(self.encoder.positions, self.predictor.width, self.predictor.heads)
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
