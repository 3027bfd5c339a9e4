"""VideoMAE (Tong et al., arXiv:2203.12602) and VideoMAE V2 (Wang et al., arXiv:2303.16727).

A tenth of a clip's tubelets, in tubes, is encoded. A small decoder gets their latents, and mask
tokens at other positions, whose pixels it reconstructs. VideoMAE decodes all hidden positions.
VideoMAE V2 (``mask.decoder_ratio``) decodes half of all positions, chosen by running cells, with a
loss on those that are hidden.

Letters: B batch, N tubelets, V visible, M masked, Nd decoded, P = t*p*p*C pixels per tubelet.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import model_validator
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.config.keys.masks import ClipMaskSection
from mimsuite.config.keys.shared import MethodCard, MethodSection, Recipe
from mimsuite.config.keys.video import (
    ClipAugmentSection,
    ClipAutoencoderSection,
    ClipDataSection,
    ClipTargetSection,
)
from mimsuite.masking import TokenMask, build_sampler, gather_tokens
from mimsuite.methods.base import Context, Method, Output, Panel
from mimsuite.models import ClipDecoder, Features, VideoViT
from mimsuite.noise import Noise
from mimsuite.targets import TubeletTarget
from mimsuite.tokens import from_tubelets
from mimsuite.weights.names import Names


class VideoMAESection(MethodSection):
    """`method:` VideoMAE has no keys of its own."""

    name: Literal["videomae"]


class VideoMAERecipe(Recipe):
    """A recipe for VideoMAE or, with `mask.decoder_ratio`, VideoMAE V2 pretraining."""

    card: ClassVar[MethodCard] = MethodCard("arXiv:2303.16727", "verified", ("step", "trajectory"))

    method: VideoMAESection
    model: ClipAutoencoderSection
    mask: ClipMaskSection
    target: ClipTargetSection
    data: ClipDataSection = ClipDataSection()
    augment: ClipAugmentSection = ClipAugmentSection()

    @model_validator(mode="after")
    def _masks_fit_the_grid(self) -> VideoMAERecipe:
        frames, rows, columns = self.model.encoder.grid
        places = rows * columns * (frames if self.mask.kind == "spacetime" else 1)
        hidden = self.mask.hidden(places)
        if hidden in (0, places):
            raise ValueError(
                f"mask.ratio {self.mask.ratio} hides {hidden} of {places} places: at least one "
                f"must be visible and one hidden"
            )
        if not self.mask.decode_visible and (frames % 4 or rows % 2 or columns % 2):
            raise ValueError(
                f"mask.decode_visible=false needs a grid of 4k x 2m x 2n tokens, not {frames} x "
                f"{rows} x {columns}"
            )
        return self


class VideoMAE(Method):
    """Masked autoencoder of tubelets."""

    Recipe = VideoMAERecipe
    # Published checkpoints: OpenGVLab/VideoMAEv2, MCG-NJU/VideoMAE
    names: ClassVar[Names | None] = Names(
        [
            ("decoder.mask_token", "mask_token"),
            ("decoder.embed.weight", "encoder_to_decoder.weight"),
        ]
    )
    encoder: VideoViT

    def __init__(self, recipe: VideoMAERecipe) -> None:
        super().__init__(recipe)
        section = recipe.model.encoder
        self.grid, self.channels = section.grid, section.in_channels
        self.sampler = build_sampler(recipe.mask)
        self.target = TubeletTarget(recipe.target, recipe.augment.mean, recipe.augment.std)
        self.encoder = VideoViT(section)
        self.decoder = ClipDecoder(
            recipe.model.decoder,
            in_width=section.width,
            out_width=section.tubelet * section.patch_size**2 * section.in_channels,
            grid=section.grid,
            eps=section.norm_eps,
            layer_scale=section.layer_scale,
            cosine=section.cosine_attention,
        )

    def mask(self, batch: Batch, noise: Noise, ctx: Context) -> dict[str, TokenMask]:
        return {"clip": self.sampler.sample(noise, self.grid)}

    def forward(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> Output:
        """Mean squared error over decoded hidden tokens; ``prediction`` is (B, Nd, P).

        If only a part of the hidden tokens is decoded, their number differs between clips, so the
        loss is a ratio of sums over the batch.
        """
        mask, clips = masks["clip"], batch.views["clip"]
        latent = self._latent(clips, mask, ctx)
        prediction = self.decoder(latent, mask)  # (B, Nd, P)
        target = self.target(self.encoder.tubelets(clips, mask.ids("decoded")), self.channels)
        loss, weight = self.target.loss(prediction, target, mask.decoded_masked)
        return Output(loss, {"pixels": loss.detach()}, prediction, masks, weight)

    def reconstruct(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> Tensor:
        """Predictions of all hidden tubelets, even if training decodes only a part: (B, M, P)."""
        mask = masks["clip"]
        latent = self._latent(batch.views["clip"], mask, ctx)
        prediction: Tensor = self.decoder(latent, mask, "masked")
        return prediction

    def panels(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> list[Panel]:
        """Original, masked, and the reconstruction of the hidden part."""
        mask = masks["clip"]
        vectors = self.encoder.tubelets(batch.views["clip"]).float()  # (B, N, P)
        hidden = mask.gather(vectors, "masked")
        rebuilt = self.target.denormalize(
            self.reconstruct(batch, masks, ctx), hidden, self.channels
        )
        seen = mask.gather(vectors, "visible")
        whole = gather_tokens(torch.cat([seen, rebuilt], dim=1), mask.restore())
        note = " (true tubelet mean and contrast)" if self.target.normalize else ""
        masked = vectors.masked_fill(mask.dense().unsqueeze(-1), 0.0)
        return [
            Panel("original", batch.views["clip"].float()),
            Panel("masked", self._clips(masked)),
            Panel("reconstruction" + note, self._clips(whole)),
        ]

    def _latent(self, clips: Tensor, mask: TokenMask, ctx: Context) -> Features:
        visible = self.encoder.tubelets(clips, mask.visible)  # (B, V, P)
        features: Features = self.encoder(visible, mask.visible, noise=ctx.noise)
        return features

    def _clips(self, vectors: Tensor) -> Tensor:
        section = self.encoder.section
        return from_tubelets(vectors, section.tubelet, section.patch_size, self.grid)

    # --- for the optimizer ---

    def no_weight_decay(self) -> set[str]:
        scales = {name for name, _ in self.named_parameters() if name.endswith(".attn.scale")}
        return scales | {"decoder.mask_token"}
