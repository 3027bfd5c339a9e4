"""`model:` the encoders and decoders from which methods choose. Nothing here imports torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Tag, model_validator

from mimsuite.config.keys.section import (
    Dimension,
    DropPath,
    FirstBlocks,
    Key,
    Positive,
    Range,
    Section,
    Size,
    by_kind,
    height_width,
)

# How --init-from takes weights of another number of channels: their mean for every channel, or
# theirs in turn. Either way an image whose channels are all equal gives what it gave before.
# null: such weights are refused.
AdaptChannels = Annotated[Literal["mean", "repeat"] | None, Key.FREE]


TrainedPositions = Annotated[bool, Key.TUNABLE]  # positions stay as they begin, or are trained

# Where positions begin: the sin-cos table, or a random draw, which has to be trained.
PositionStart = Literal["sin-cos", "random"]


class PatchEncoderSection(Section):
    """What all encoders of image patches have."""

    kind: str
    image_size: Annotated[Size, Key.SIZE | Key.FREE] = 224  # pixels, one number or [height, width]
    patch_size: Dimension = 16  # pixels
    in_channels: Positive = 3
    adapt_channels: AdaptChannels = None  # of --init-from: mean or repeat; null: refused
    width: Dimension = 768
    depth: Dimension = 12
    heads: Dimension = 12

    @property
    def grid(self) -> tuple[int, int]:
        """Patches per column and per row."""
        height, width = height_width(self.image_size)
        return height // self.patch_size, width // self.patch_size

    @model_validator(mode="after")
    def _fits(self) -> PatchEncoderSection:
        height, width = height_width(self.image_size)
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f"patch_size {self.patch_size} does not divide image_size {height} x {width}"
            )
        if self.width % self.heads:
            raise ValueError(f"heads {self.heads} does not divide width {self.width}")
        if self.width % 4:
            raise ValueError(f"width {self.width} must be a multiple of 4 for sin-cos positions")
        return self


class ViTSection(PatchEncoderSection):
    """A plain vision transformer (Dosovitskiy et al., arXiv:2010.11929)."""

    kind: Literal["vit"] = "vit"
    mlp_ratio: Annotated[float, Field(gt=0.0)] = 4.0
    drop_path: DropPath = 0.0  # of the last block; grows linearly from 0 in the first
    norm_eps: Annotated[float, Field(gt=0.0)] = 1e-6
    final_norm: Annotated[bool, Key.FREE] = True  # a layer norm over the output of the last block
    class_tokens: Annotated[int, Field(ge=0)] = 1  # in front of the patches; 0: patches alone
    trained_positions: TrainedPositions = False
    position_start: PositionStart = "sin-cos"  # random: of class tokens too

    @model_validator(mode="after")
    def _random_positions_train(self) -> ViTSection:
        _require_training(self.position_start, self.trained_positions)
        return self


class PostNormViTSection(ViTSection):
    """A transformer that norms behind each residual sum, as data2vec has it (arXiv:2212.07525).

    One class token without a position, and a norm in front of the first block.
    """

    kind: Literal["post-norm-vit"] = "post-norm-vit"  # type: ignore[assignment]
    class_tokens: Literal[1] = 1  # type: ignore[assignment]
    final_norm: Literal[False] = False  # type: ignore[assignment]  # each block ends with one
    # First blocks that belong to the stem: never a target
    prenet: Annotated[int, Field(ge=0), Key.FREE] = 0

    @model_validator(mode="after")
    def _blocks_are_left(self) -> PostNormViTSection:
        if self.prenet >= self.depth:
            raise ValueError(f"prenet {self.prenet} leaves none of depth {self.depth} blocks")
        return self


class BEiTSection(ViTSection):
    """BEiT's transformer, as CAE has it (arXiv:2106.08254, arXiv:2202.03026).

    Beside a plain ViT: no bias of the keys, a trained scale of each residual branch, fixed
    positions that encode the row first and, for fine-tuning, relative position biases.
    """

    kind: Literal["beit"]  # type: ignore[assignment]
    class_tokens: Literal[1] = 1  # type: ignore[assignment]
    layer_scale: Annotated[float, Field(ge=0.0), Key.FREE] = 0.1  # their first value; 0: none
    # Biases of the attention in each block; whole images only
    relative_positions: Annotated[bool, Key.TUNABLE] = False


class ConvViTSection(ViTSection):
    """Two convolution stages before a transformer (ConvMAE, Gao et al., arXiv:2205.03892).

    Keys that begin with `conv_` are of these stages, first stage first; the others are as in a
    plain transformer, which the last stage is.
    """

    kind: Literal["convvit"] = "convvit"  # type: ignore[assignment]
    class_tokens: Literal[0] = 0  # type: ignore[assignment]  # it has none
    position_start: Literal["sin-cos"] = "sin-cos"
    depth: Dimension = 11
    conv_strides: tuple[Positive, Positive] = (4, 2)  # of their patch embeddings
    conv_width: Annotated[tuple[Positive, Positive], Key.SIZE] = (256, 384)
    conv_depth: Annotated[tuple[Positive, Positive], Key.SIZE] = (2, 2)
    conv_kernel: Positive = 5  # of the depthwise convolutions, pixels of the stage
    conv_mlp_ratio: Range = (4.0, 4.0)
    conv_norm_eps: Annotated[float, Field(gt=0.0)] = 1e-5  # and of the norms of patch embeddings
    # In pretraining, add both stages to the output; transfers never do
    fusion: Annotated[bool, Key.TRAINING] = False

    @model_validator(mode="after")
    def _stages_fit(self) -> ConvViTSection:
        first, second = self.conv_strides
        if self.patch_size % (first * second):
            raise ValueError(
                f"conv_strides {first} x {second} do not divide patch_size {self.patch_size}"
            )
        if self.conv_kernel % 2 == 0:
            raise ValueError(f"conv_kernel {self.conv_kernel} must be odd")
        return self


class RegisterViTSection(PatchEncoderSection):
    """A transformer with registers and rotary positions, as CAPI has it (arXiv:2502.08769).

    Linear layers of its blocks have no biases, and the norm over the output has no parameters.
    """

    kind: Literal["register-vit"] = "register-vit"
    mlp_ratio: Annotated[float, Field(gt=0.0)] = 4.0
    norm: Literal["rms", "layer"] = "rms"  # what norms are
    norm_eps: Annotated[float, Field(gt=0.0)] = 1e-5
    registers: Annotated[int, Field(ge=0, multiple_of=4)] = 16  # tokens in front of the patches
    register_places: Literal["edge", "corner"] = "edge"  # around the image, or all at its first one
    registers_in_box: bool = True  # places are of the box of the visible patches
    # Cycles across the image of the fastest and the slowest angle of rotary positions
    cycles: Range = (7.0, 7e-4)
    drop_path: DropPath = 0.0  # of every block alike
    # batch: of each branch, so many samples of the micro-batch skip it, which saves time, and
    # results depend on train.micro_batch; sample: each skips it with that probability
    drop_path_by: Annotated[Literal["batch", "sample"], Key.TRAINING] = "batch"

    @model_validator(mode="after")
    def _heads_turn(self) -> RegisterViTSection:
        if self.width // self.heads % 4 or self.width // self.heads < 8:
            raise ValueError(
                f"heads {self.heads} of {self.width // self.heads}: rotary positions need heads of "
                f"8, 12, 16 ..."
            )
        return self


class CrateSection(PatchEncoderSection):
    """CRATE, a transformer of compression and sparsification (Yu et al., arXiv:2306.01129)."""

    kind: Literal["crate"] = "crate"
    embed: Literal["linear", "normed"] = "linear"  # of CRATE-MAE, or of the CRATE classifier
    step_size: Annotated[float, Field(gt=0.0)] = 0.1  # eta of the ISTA step
    sparsity: Annotated[float, Field(ge=0.0)] = 0.1  # lambda of the ISTA step
    norm_eps: Annotated[float, Field(gt=0.0)] = 1e-5
    final_norm_eps: Annotated[float, Field(gt=0.0)] = 1e-6  # of the norm over the output
    # With embed linear: fixed sin-cos, or started there and trained
    trained_positions: TrainedPositions = False

    @model_validator(mode="after")
    def _positions_learn(self) -> CrateSection:
        if self.embed == "normed" and not self.trained_positions:
            raise ValueError(
                "embed normed starts from random positions: set trained_positions true"
            )
        return self


def _require_training(start: PositionStart, trained: bool) -> None:
    if start == "random" and not trained:
        raise ValueError("position_start random needs trained_positions true")


# Any encoder, told apart by its `kind`; for methods that train whatever was pretrained.
EncoderSection = Annotated[
    Annotated[ViTSection, Tag("vit")]
    | Annotated[PostNormViTSection, Tag("post-norm-vit")]
    | Annotated[BEiTSection, Tag("beit")]
    | Annotated[ConvViTSection, Tag("convvit")]
    | Annotated[CrateSection, Tag("crate")]
    | Annotated[RegisterViTSection, Tag("register-vit")],
    by_kind("vit"),
]


class DecoderSection(Section):
    """A light transformer over visible latents and mask tokens (MAE)."""

    kind: Literal["self"] = "self"
    width: Dimension = 512
    depth: Dimension = 8
    heads: Dimension = 16
    mlp_ratio: Annotated[float, Field(gt=0.0)] = 4.0
    trained_positions: TrainedPositions = False
    position_start: PositionStart = "sin-cos"  # random: of class tokens too

    @model_validator(mode="after")
    def _fits(self) -> DecoderSection:
        _require_training(self.position_start, self.trained_positions)
        if self.width % self.heads:
            raise ValueError(f"heads {self.heads} does not divide width {self.width}")
        if self.width % 4:
            raise ValueError(f"width {self.width} must be a multiple of 4 for sin-cos positions")
        return self


class CrossDecoderSection(DecoderSection):
    """A light transformer in which mask tokens attend to the encoder's layers (CrossMAE).

    Each block reads its own trained mixture of them.
    """

    kind: Literal["cross"]  # type: ignore[assignment]
    depth: Dimension = 12
    # Numbers, from 1, of the encoder's blocks whose outputs are mixed; 0: its input; null: all of
    # them. Blocks behind the last one that is read do not train.
    layers: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    self_attention: bool = False  # mask tokens attend to each other first

    def reads(self, depth: int) -> tuple[int, ...]:
        """The layers that are mixed, of an encoder of ``depth`` blocks, in rising order."""
        return tuple(range(depth + 1)) if self.layers is None else tuple(sorted(self.layers))

    @model_validator(mode="after")
    def _layers_are_a_set(self) -> CrossDecoderSection:
        if self.layers is not None and (
            not any(self.layers) or len(set(self.layers)) < len(self.layers)
        ):
            raise ValueError(
                f"layers {list(self.layers)}: name at least one block, and none of them twice"
            )
        return self


class ConvDecoderSection(Section):
    """Convolutions over the grid of tokens, noise in place of the hidden ones (data2vec 2.0)."""

    width: Dimension = 768  # channels
    depth: Dimension = 6  # convolutions
    kernel: Positive = 3  # tokens of a side
    groups: Positive = 16  # of channels; divides both widths
    noise: Annotated[float, Field(ge=0.0)] = 0.01  # deviation of the noise, drawn anew each time

    @model_validator(mode="after")
    def _fits(self) -> ConvDecoderSection:
        if self.width % self.groups:
            raise ValueError(f"groups {self.groups} does not divide width {self.width}")
        return self


class QueryDecoderSection(Section):
    """Blocks of the encoder's kind in which mask tokens ask the encoder, and never one another."""

    depth: Dimension = 12


# Decoders of image patches, told apart by `kind`.
AnyDecoderSection = Annotated[
    Annotated[DecoderSection, Tag("self")] | Annotated[CrossDecoderSection, Tag("cross")],
    by_kind("self"),
]


class AutoencoderSection(Section):
    """`model:` an encoder of the visible tokens and a decoder of the masked ones."""

    encoder: ViTSection = ViTSection()
    decoder: AnyDecoderSection = DecoderSection()
    freeze: FirstBlocks = 0  # keep the embeddings and so many first blocks as they are
