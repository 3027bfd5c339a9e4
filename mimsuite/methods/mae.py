"""MAE: Masked Autoencoders Are Scalable Vision Learners (He et al., arXiv:2111.06377).

A random quarter of the patches is encoded. A small decoder gets their latents, and a mask token at
every other position, and reconstructs the pixels of the masked patches (section 3 of the paper).

Beyond the paper, ``mask.decode_ratio`` lets the decoder reconstruct only a part of the masked
patches, and ``model.decoder.kind`` chooses another decoder.

Letters: B batch, N patches, V visible, M masked, Nd decoded, P = p*p*C pixels per patch.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import model_validator
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.config.keys.encoders import AutoencoderSection
from mimsuite.config.keys.masks import RebuiltMaskSection, require_both
from mimsuite.config.keys.shared import MethodCard, MethodSection, Recipe
from mimsuite.config.keys.targets import PixelTargetSection
from mimsuite.errors import UserError
from mimsuite.masking import TokenMask, build_sampler, gather_tokens
from mimsuite.methods.base import Context, Method, Output, Panel
from mimsuite.models import Features, ImageEncoder, build_decoder, build_encoder
from mimsuite.noise import Noise
from mimsuite.targets import PixelTarget
from mimsuite.tokens import unnormalized, unpatchify
from mimsuite.weights.names import Names


class MAESection(MethodSection):
    """`method:` MAE has no keys of its own."""

    name: Literal["mae"]


class MAERecipe(Recipe):
    """A recipe for MAE pretraining."""

    card: ClassVar[MethodCard] = MethodCard("arXiv:2111.06377", "verified", ("step", "trajectory"))

    method: MAESection
    model: AutoencoderSection
    mask: RebuiltMaskSection
    target: PixelTargetSection

    @model_validator(mode="after")
    def _something_to_see_and_to_rebuild(self) -> MAERecipe:
        rows, columns = self.model.encoder.grid
        self.mask.require_grid(self.model.encoder.grid)
        visible = self.mask.visible(rows * columns)
        require_both(f"mask.ratio {self.mask.ratio}", visible, rows * columns, "patches")
        return self

    @model_validator(mode="after")
    def _the_decoder_reads_layers_there_are(self) -> MAERecipe:
        depth = self.model.encoder.depth
        for number in getattr(self.model.decoder, "layers", None) or ():
            if number > depth:
                raise ValueError(
                    f"model.decoder.layers {number} exceeds model.encoder.depth {depth}"
                )
        return self


# Decoder parameters: our name and the published name.
DECODER_NAMES = (
    ("decoder.mask_token", "mask_token"),
    ("decoder.mix.", "wfm.linear."),
    ("decoder.memory_norms.", "dec_norms."),
    ("decoder.", "decoder_"),
)


class MAE(Method):
    """Masked autoencoder on a plain ViT."""

    Recipe: ClassVar[type[MAERecipe]] = MAERecipe
    # Published checkpoints: facebookresearch/mae
    names: ClassVar[Names | None] = Names([*DECODER_NAMES, ("encoder.", "")])
    encoder: ImageEncoder

    def __init__(self, recipe: MAERecipe) -> None:
        super().__init__(recipe)
        section = recipe.model.encoder
        self.grid, self.patch_size = section.grid, section.patch_size
        self.sampler = build_sampler(recipe.mask)
        self.target = PixelTarget(recipe.target)
        encoder = build_encoder(section)
        assert isinstance(encoder, ImageEncoder)
        self.encoder = encoder
        pixels = section.patch_size**2 * section.in_channels
        self.decoder = build_decoder(recipe.model.decoder, encoder, pixels)
        for name in self.unused_parameters():
            self.get_parameter(name).requires_grad_(False)

    def mask(self, batch: Batch, noise: Noise, ctx: Context) -> dict[str, TokenMask]:
        return {"image": self.sampler.sample(noise, self.grid)}

    def latent(self, batch: Batch, mask: TokenMask, ctx: Context) -> Features:
        """The encoder's features of the visible patches, for the layers that the decoder reads."""
        visible = self.encoder.patches(batch.image, mask.visible)  # (B, V, P)
        features: Features = self.encoder(
            visible, mask.visible, noise=ctx.noise, layers=self.decoder.layers
        )
        return features

    def forward(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> Output:
        """Mean squared error over the decoded patches; ``prediction`` is (B, Nd, P)."""
        mask = masks["image"]
        prediction = self.decoder(self.latent(batch, mask, ctx), mask)  # (B, Nd, P)
        target = self.target(self.encoder.patches(batch.image, mask.ids("decoded")))
        loss = self.target.loss(prediction, target)
        return Output(loss, {"pixels": loss.detach()}, prediction, masks)

    def reconstruct(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> Tensor:
        """Predictions for all patches, including visible ones: (B, N, P) in raster order."""
        mask = masks["image"]
        latent = self.latent(batch, mask, ctx)
        return gather_tokens(self.decoder(latent, mask, everywhere=True), mask.restore())

    def rebuilt(self, batch: Batch) -> Tensor:
        """Reconstructions (B, C, H, W) of a normalised batch, clamped to [0, 1]; visible patches
        are those of the image.

        Raises:
            UserError: targets are normalised, so the decoder does not predict pixels.
        """
        if self.target.normalize:
            raise UserError(
                f"{self.recipe.method.name} has no head to score: fine-tune it first, or probe it "
                "with mimsuite linear-probe; its pixels are scored if it was trained with "
                "target.normalize=false"
            )
        noise = Noise(self.recipe.train.seed, 0, batch.index)
        ctx = self.prepare(batch, noise)
        shown = self.panels(batch, self.mask(batch, noise, ctx), ctx)[-1].images
        return self.pixels(shown).clamp(0, 1)

    def pixels(self, images: Tensor) -> Tensor:
        """Normalised images -> pixels in [0, 1]; predictions may exceed it."""
        augment = self.recipe.augment
        return unnormalized(images, augment.mean, augment.std)

    def panels(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> list[Panel]:
        """Original, masked, reconstruction, and reconstruction with the visible patches."""
        patches = self.encoder.patches(batch.image).float()  # (B, N, P)
        hidden = masks["image"].dense().unsqueeze(-1)  # (B, N, 1)
        rebuilt = self.target.denormalize(self.reconstruct(batch, masks, ctx), patches)
        note = " (true patch mean and contrast)" if self.target.normalize else ""

        def picture(title: str, tokens: Tensor) -> Panel:
            return Panel(title, unpatchify(tokens, self.patch_size, self.grid))

        return [
            Panel("original", batch.image.float()),
            picture("masked", patches.masked_fill(hidden, 0.0)),
            picture("reconstruction" + note, rebuilt),
            picture("reconstruction + visible", patches.where(~hidden, rebuilt)),
        ]

    def unused_parameters(self) -> set[str]:
        """Parameters of encoder blocks after the deepest layer that the decoder reads."""
        deepest = max(self.decoder.layers, default=self.encoder.depth)
        return {
            f"encoder.{name}"
            for name, _ in self.encoder.named_parameters()
            if deepest < self.encoder.depth and self.encoder.layer_id(name) > deepest
        }
