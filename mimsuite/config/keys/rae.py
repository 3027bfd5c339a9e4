"""`model:` and `target:` of representation autoencoders. Nothing here imports torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mimsuite.config.keys.section import (
    Dimension,
    Key,
    PathText,
    Positive,
    Section,
    Size,
    height_width,
)
from mimsuite.config.keys.teachers import DinoTeacherSection, TeacherSection

Above = Annotated[float, Field(gt=0.0)]
NotBelow = Annotated[float, Field(ge=0.0)]
Epoch = Annotated[int, Field(ge=0)]


class FrozenEncoderSection(Section):
    """A frozen network, and the image that is rebuilt from its tokens."""

    kind: Literal["frozen"]
    image_size: Annotated[Size, Key.SIZE | Key.FREE]  # pixels of the rebuilt image
    patch_size: Dimension = 16  # rebuilt pixels per token, along a side
    in_channels: Positive = 3
    network: TeacherSection  # its input is resized so that both have the same grid of tokens
    # plain: tokens after the last norm without its weight and bias; a network without a last norm
    # gets one. trained: tokens as the network gives them.
    norm: Literal["plain", "trained"] = "plain"

    @property
    def grid(self) -> tuple[int, int]:
        """Tokens per column and per row."""
        height, width = height_width(self.image_size)
        return height // self.patch_size, width // self.patch_size

    @property
    def width(self) -> int:
        """Width of the tokens."""
        return self.network.feature_width

    @property
    def depth(self) -> int:
        """Number of blocks; 1 for a network without blocks."""
        return max(self.network.blocks, 1)

    @model_validator(mode="after")
    def _fits(self) -> FrozenEncoderSection:
        height, width = height_width(self.image_size)
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f"patch_size {self.patch_size} does not divide image_size {height} x {width}"
            )
        return self


class TokenDecoderSection(Section):
    """A ViT from tokens to pixels."""

    width: Dimension = 1152
    depth: Dimension = 28
    heads: Dimension = 16
    mlp_width: Dimension = 4096  # hidden units of a block's MLP
    norm_eps: Above = 1e-12  # in all layer norms

    @model_validator(mode="after")
    def _fits(self) -> TokenDecoderSection:
        if self.width % self.heads:
            raise ValueError(f"heads {self.heads} does not divide width {self.width}")
        if self.width % 4:
            raise ValueError(f"sin-cos positions need a width that 4 divides, not {self.width}")
        return self


class LatentSection(Section):
    """Tokens on their way to the decoder, and as latents for generative models."""

    # Deviation of the noise on tokens in training: each image draws a share of it, uniformly
    noise: NotBelow = 0.8
    # File of the latents' mean and variance (`stat.pt`, or safetensors); "": not normalised. The
    # decoder reads tokens that are not normalised, so it is the same with any file.
    statistics: PathText = ""


class RAEModelSection(Section):
    """`model:` a frozen encoder and a trained decoder."""

    encoder: FrozenEncoderSection
    decoder: TokenDecoderSection = TokenDecoderSection()
    latent: LatentSection = LatentSection()


class CodebookSection(Section):
    """A vocabulary of vectors: fixed points through one trained linear map (SimVQ)."""

    codes: Dimension = 16384  # size of the vocabulary
    width: Dimension | None = None  # code width; null: the tokens'. Another one adds linear layers
    # Fixed points at first. random: normal ones; kmeans: centres of the first training tokens,
    # behind a map that starts as the identity
    start: Literal["random", "kmeans"] = "random"
    samples: Dimension = 50_000  # tokens that k-means is fitted on
    iterations: Positive = 20  # iterations of k-means
    # Weight with which tokens are drawn to their codes; codes are drawn to tokens with weight 1.
    # Without effect where the tokens are those of the frozen encoder (width: null)
    commitment: NotBelow = 0.25


class CodedModelSection(RAEModelSection):
    """`model:` a frozen encoder, a codebook for its tokens, and a trained decoder of the codes."""

    latent: LatentSection = LatentSection(noise=0.0)
    codebook: CodebookSection = CodebookSection()


class PerceptualSection(Section):
    """LPIPS: distance in the features of VGG16 (arXiv:1801.03924)."""

    weight: NotBelow = 1.0
    weights: PathText = ""  # LPIPS's weights; `random`: random weights of both networks
    vgg: PathText = ""  # VGG16's weights; "": in the file of `weights`
    from_epoch: Epoch = 0


class AdversarialSection(Section):
    """A discriminator on features of a frozen DINO, whose heads are trained on the way."""

    weight: NotBelow = 0.75  # beside the weight that balances the gradients
    network: DinoTeacherSection = DinoTeacherSection(
        kind="dino", patch_size=8, width=384, depth=12, heads=6
    )
    image_size: Dimension = 224  # pixels of its input
    layers: tuple[Positive, ...] = (3, 6, 9, 12)  # blocks that heads read, beside the last one
    kernel: Dimension = 9  # width of a head's convolution over the tokens; odd
    loss: Literal["hinge", "vanilla"] = "hinge"
    from_epoch: Epoch = 8  # the decoder learns from it
    heads_from_epoch: Epoch = 6  # it learns itself
    updates: Positive = 1  # updates of the heads after each of the decoder
    largest_weight: Above = 1e4  # limit of the weight that balances the gradients
    cutout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0  # side of the erased square, share

    @model_validator(mode="after")
    def _fits(self) -> AdversarialSection:
        if max(self.layers) > self.network.blocks:
            raise ValueError(f"layers {max(self.layers)} exceeds the {self.network.blocks} blocks")
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel {self.kernel} must be odd")
        if self.image_size % self.network.patch_size:
            raise ValueError(
                f"network.patch_size {self.network.patch_size} does not divide image_size "
                f"{self.image_size}"
            )
        return self


class ReconstructionSection(Section):
    """`target:` all pixels of the image."""

    kind: Literal["reconstruction"] = "reconstruction"
    loss: Literal["l1", "l2"] = "l1"  # between pixels in [0, 1]
    perceptual: PerceptualSection | None = None
    adversarial: AdversarialSection | None = None


class CodedReconstructionSection(ReconstructionSection):
    """`target:` all pixels of the image, from codes."""

    kind: Literal["coded-reconstruction"] = "coded-reconstruction"  # type: ignore[assignment]
    codebook_weight: NotBelow = 1.0  # weight of squared distances between tokens and codes
