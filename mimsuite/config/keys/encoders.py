"""`model:` the encoders and decoders that methods choose from. Nothing here imports torch."""

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
    require_divides,
    require_patches,
)

# How --init-from adapts weights trained with another number of channels. mean: every channel gets
# their mean; repeat: channels get theirs in turn; null: such weights are refused. Either way the
# output for an image with equal channels is unchanged.
AdaptChannels = Annotated[Literal["mean", "repeat"] | None, Key.FREE]

# How --init-from takes weights of an image transformer. mean: every layer of a kernel gets its
# share; centre: the middle layer gets all; null: such weights are refused.
Inflate = Annotated[Literal["mean", "centre"] | None, Key.FREE]


TrainedPositions = Annotated[bool, Key.TUNABLE]  # whether position embeddings are trained

# Initial position embeddings: the sin-cos table, or random values, which must be trained.
PositionStart = Literal["sin-cos", "random"]


class PatchEncoderSection(Section):
    """Keys that all encoders of image patches share."""

    kind: str
    image_size: Annotated[Size, Key.SIZE | Key.FREE] = 224  # pixels, one number or [height, width]
    patch_size: Dimension = 16  # pixels
    in_channels: Positive = 3
    adapt_channels: AdaptChannels = None  # --init-from, other channels: mean, repeat; null: refuse
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
        require_patches(self.patch_size, height_width(self.image_size))
        require_divides("heads", self.heads, "width", self.width)
        if self.width % 4:
            raise ValueError(f"width {self.width} must be a multiple of 4 for sin-cos positions")
        return self


class ViTSection(PatchEncoderSection):
    """A plain vision transformer (Dosovitskiy et al., arXiv:2010.11929)."""

    kind: Literal["vit"] = "vit"
    mlp_ratio: Annotated[float, Field(gt=0.0)] = 4.0
    drop_path: DropPath = 0.0  # rate in the last block; rises linearly from 0 in the first
    norm_eps: Annotated[float, Field(gt=0.0)] = 1e-6
    final_norm: Annotated[bool, Key.FREE] = True  # layer norm on the output of the last block
    class_tokens: Annotated[int, Field(ge=0)] = 1  # class tokens before the patches; 0: none
    trained_positions: TrainedPositions = False
    position_start: PositionStart = "sin-cos"  # random: class tokens get positions too

    @model_validator(mode="after")
    def _random_positions_train(self) -> ViTSection:
        _require_training(self.position_start, self.trained_positions)
        return self


class PostNormViTSection(ViTSection):
    """A post-norm transformer: a norm after each residual sum, as in data2vec (arXiv:2212.07525).

    It has one class token without a position, and a norm before the first block.
    """

    kind: Literal["post-norm-vit"] = "post-norm-vit"  # type: ignore[assignment]
    class_tokens: Literal[1] = 1
    final_norm: Literal[False] = False  # each block ends with a norm
    # Number of first blocks that form the stem and are never targets
    prenet: Annotated[int, Field(ge=0), Key.FREE] = 0

    @model_validator(mode="after")
    def _blocks_are_left(self) -> PostNormViTSection:
        if self.prenet >= self.depth:
            raise ValueError(f"prenet {self.prenet} leaves none of depth {self.depth} blocks")
        return self


class BEiTSection(ViTSection):
    """BEiT's transformer, as CAE has it (arXiv:2106.08254, arXiv:2202.03026).

    Unlike a plain ViT it has no bias on the keys, a trained scale on each residual branch, fixed
    positions that encode the row first and, for fine-tuning, relative position biases.
    """

    kind: Literal["beit"]  # type: ignore[assignment]
    class_tokens: Literal[1] = 1
    layer_scale: Annotated[float, Field(ge=0.0), Key.FREE] = 0.1  # initial branch scale; 0: none
    # Relative position biases in each block's attention; needs all patches of the image
    relative_positions: Annotated[bool, Key.TUNABLE] = False


class ConvViTSection(ViTSection):
    """Two convolution stages before a transformer (ConvMAE, Gao et al., arXiv:2205.03892).

    Keys that begin with `conv_` configure these two stages, in order; the other keys configure the
    last stage, a plain transformer.
    """

    kind: Literal["convvit"] = "convvit"  # type: ignore[assignment]
    class_tokens: Literal[0] = 0
    position_start: Literal["sin-cos"] = "sin-cos"
    depth: Dimension = 11
    conv_strides: tuple[Positive, Positive] = (4, 2)  # strides of the patch embeddings
    conv_width: Annotated[tuple[Positive, Positive], Key.SIZE] = (256, 384)
    conv_depth: Annotated[tuple[Positive, Positive], Key.SIZE] = (2, 2)
    conv_kernel: Positive = 5  # side of the depthwise convolutions, in positions of the stage
    conv_mlp_ratio: Range = (4.0, 4.0)
    conv_norm_eps: Annotated[float, Field(gt=0.0)] = 1e-5  # also for norms of patch embeddings
    # In pretraining, add the outputs of both stages to the encoder's output; transfers do not
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
    drop_path: DropPath = 0.0  # the same in every block
    # batch: this share of the micro-batch skips each branch, which saves time, and results
    # depend on train.micro_batch; sample: each sample skips it with that probability
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
    embed: Literal["linear", "normed"] = "linear"  # patch embedding: CRATE-MAE's or CRATE's
    step_size: Annotated[float, Field(gt=0.0)] = 0.1  # eta of the ISTA step
    sparsity: Annotated[float, Field(ge=0.0)] = 0.1  # lambda of the ISTA step
    norm_eps: Annotated[float, Field(gt=0.0)] = 1e-5
    final_norm_eps: Annotated[float, Field(gt=0.0)] = 1e-6  # epsilon of the final norm
    # With embed linear, positions start as sin-cos and are fixed or trained
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


# Any image encoder, selected by `kind`; for methods that train any pretrained encoder.
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
    position_start: PositionStart = "sin-cos"  # random: class tokens get positions too

    @model_validator(mode="after")
    def _fits(self) -> DecoderSection:
        _require_training(self.position_start, self.trained_positions)
        require_divides("heads", self.heads, "width", self.width)
        if self.width % 4:
            raise ValueError(f"width {self.width} must be a multiple of 4 for sin-cos positions")
        return self


class CrossDecoderSection(DecoderSection):
    """A light transformer in which mask tokens attend to the encoder's block outputs (CrossMAE).

    Each decoder block reads its own trained mixture of those outputs.
    """

    kind: Literal["cross"]  # type: ignore[assignment]
    depth: Dimension = 12
    # Encoder blocks whose outputs are mixed, counted from 1; 0: the encoder's input; null: all.
    # Blocks after the last one listed do not train.
    layers: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    self_attention: bool = False  # mask tokens attend to each other first

    def reads(self, depth: int) -> tuple[int, ...]:
        """The layers that are mixed, ascending, for an encoder of ``depth`` blocks."""
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
    """Convolutions over the grid of tokens, with noise as hidden tokens (data2vec 2.0)."""

    width: Dimension = 768  # channels
    depth: Dimension = 6  # number of convolutions
    kernel: Positive = 3  # side of a kernel in tokens
    groups: Positive = 16  # channel groups; must divide both widths
    noise: Annotated[float, Field(ge=0.0)] = 0.01  # deviation of the noise, redrawn each step

    @model_validator(mode="after")
    def _fits(self) -> ConvDecoderSection:
        require_divides("groups", self.groups, "width", self.width)
        return self


class QueryDecoderSection(Section):
    """Blocks of the encoder's kind; mask tokens attend to the encoder, not to each other."""

    depth: Dimension = 12


# Decoders of image patches, selected by `kind`.
AnyDecoderSection = Annotated[
    Annotated[DecoderSection, Tag("self")] | Annotated[CrossDecoderSection, Tag("cross")],
    by_kind("self"),
]


class AutoencoderSection(Section):
    """`model:` an encoder of the visible tokens and a decoder of the masked tokens."""

    encoder: ViTSection = ViTSection()
    decoder: AnyDecoderSection = DecoderSection()
    freeze: FirstBlocks = 0  # freeze the embeddings and this many first blocks; 0: train all
