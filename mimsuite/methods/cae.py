"""CAE: Context Autoencoder for Self-Supervised Representation Learning (Chen et al.,
arXiv:2202.03026).

The encoder sees the visible patches. From their latents, a regressor predicts the latents of the
masked patches. A decoder predicts each masked patch's code from its predicted latent alone. A
second loss aligns the predicted latents with the encoder's own latents of the masked patches
(section 3.2, "latent representation alignment").

The published code computes those with a second copy of the encoder, whose weights always equal the
encoder's. Here the encoder itself does it, without gradient and with its own drop-path draws.

Letters: B batch, N patches, V visible, M masked, D width of the regressor, K codes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.config.keys.cae import RegressorSection, TokenDecoderSection
from mimsuite.config.keys.encoders import BEiTSection
from mimsuite.config.keys.masks import ImageMaskSection, require_both
from mimsuite.config.keys.section import Section, height_width
from mimsuite.config.keys.shared import MethodCard, MethodSection, Recipe
from mimsuite.config.keys.targets import TokenTargetSection
from mimsuite.config.keys.tokenizers import check_codes
from mimsuite.masking import TokenMask, build_sampler
from mimsuite.methods.base import Context, Method, Output, Panel, no_gather
from mimsuite.models import BEiT, Regressor, TokenDecoder
from mimsuite.models.beit import init_beit
from mimsuite.noise import Noise
from mimsuite.targets import build_tokenizer
from mimsuite.tokens import unpatchify


class CAESection(MethodSection):
    """`method:` weights of the two losses."""

    name: Literal["cae"]
    # Weight of the mean squared error between predicted and encoded latents.
    alignment_weight: Annotated[float, Field(ge=0.0)] = 2.0


class CAEModelSection(Section):
    """`model:` encoder of the visible patches, regressor and decoder of the masked patches."""

    encoder: BEiTSection
    regressor: RegressorSection
    decoder: TokenDecoderSection
    # Initial weights. xavier: as in every published run; beit: normal, with the last layer of each
    # branch scaled down with depth (fix_init_weight in the published code)
    init: Literal["xavier", "beit"] = "xavier"


class CAERecipe(Recipe):
    """A recipe for CAE pretraining."""

    card: ClassVar[MethodCard] = MethodCard("arXiv:2202.03026", "verified", ("step", "trajectory"))

    method: CAESection
    model: CAEModelSection
    mask: ImageMaskSection
    target: TokenTargetSection

    @model_validator(mode="after")
    def _parts_fit(self) -> CAERecipe:
        encoder, second = self.model.encoder, self.augment.second_view
        if encoder.relative_positions:
            raise ValueError(
                "model.encoder.relative_positions needs whole images: set it for fine-tuning only"
            )
        tokens = encoder.grid[0] * encoder.grid[1]
        visible = self.mask.visible(tokens)
        require_both("mask.ratio or mask.count", visible, tokens, "patches")
        check_codes(
            self.target.tokenizer,
            None if second is None else height_width(second.image_size),
            height_width(encoder.image_size),
            encoder.grid,
        )
        return self


class CAE(Method):
    """Context autoencoder on BEiT's transformer."""

    Recipe = CAERecipe
    encoder: BEiT

    def __init__(self, recipe: CAERecipe) -> None:
        super().__init__(recipe)
        section, model = recipe.model.encoder, recipe.model
        self.grid, self.patch_size = section.grid, section.patch_size
        self.alignment_weight = recipe.method.alignment_weight
        self.sampler = build_sampler(recipe.mask)
        self.sampler.require_reachable(self.grid)
        self.encoder = BEiT(section)
        self.regressor = Regressor(model.regressor, section.width, self.grid, section.norm_eps)
        self.decoder = TokenDecoder(
            model.decoder, model.regressor, recipe.target.tokenizer.codes, section.norm_eps
        )
        if model.init == "beit":
            init_beit(self, (part.blocks for part in (self.encoder, self.regressor, self.decoder)))
        self.tokenizer = build_tokenizer(
            recipe.target.tokenizer,
            patch=section.patch_size,
            channels=section.in_channels,
            statistics=(recipe.augment.mean, recipe.augment.std),
            grid=self.grid,
        )

    def setup(self, batches: Callable[[], Iterable[Batch]] | None) -> list[str]:
        return self.tokenizer.setup(batches, self.recipe.train.seed)

    def prepare(
        self, batch: Batch, noise: Noise, gather: Callable[[Tensor], Tensor] = no_gather
    ) -> Context:
        """The code of every patch, ``codes`` (B, N)."""
        return Context(noise, gather, {"codes": self.tokenizer(batch)})

    def mask(self, batch: Batch, noise: Noise, ctx: Context) -> dict[str, TokenMask]:
        return {"image": self.sampler.sample(noise, self.grid)}

    def forward(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> Output:
        """Cross-entropy of the codes plus weighted error of the latents, both for masked patches;
        ``prediction`` is the logits (B, M, K)."""
        mask = masks["image"]
        latents = self.latents(batch, mask, ctx.noise)
        logits = self.decoder(
            latents, self.regressor.positions(mask.masked), ctx.noise.within("decoder")
        )
        codes = ctx.prepared["codes"].gather(1, mask.masked)
        cross_entropy = F.cross_entropy(logits.flatten(0, 1).float(), codes.flatten())
        target = self.aligned(batch, mask, ctx.noise)
        alignment = self.alignment_weight * F.mse_loss(latents.float(), target.float())
        terms = {"tokens": cross_entropy.detach(), "alignment": alignment.detach()}
        return Output(cross_entropy + alignment, terms, logits, masks)

    def latents(self, batch: Batch, mask: TokenMask, noise: Noise) -> Tensor:
        """Predicted latents of the masked patches, (B, M, D)."""
        seen = self.encoder(
            self.encoder.patches(batch.image, mask.visible), mask.visible, noise=noise
        )
        return self.regressor(self.regressor.project(seen.tokens), mask, noise.within("regressor"))

    @torch.no_grad()
    def aligned(self, batch: Batch, mask: TokenMask, noise: Noise) -> Tensor:
        """The encoder's latents of the masked patches, (B, M, D)."""
        hidden = self.encoder(
            self.encoder.patches(batch.image, mask.masked),
            mask.masked,
            noise=noise.within("alignment"),
        )
        return self.regressor.project(hidden.tokens)

    def panels(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> list[Panel]:
        """Original, masked, and, if codes can be drawn, the image's and the predicted codes."""
        mask = masks["image"]
        patches = self.encoder.patches(batch.image).float()  # (B, N, P)
        hidden = mask.dense().unsqueeze(-1)  # (B, N, 1)

        def picture(title: str, tokens: Tensor) -> Panel:
            return Panel(title, unpatchify(tokens, self.patch_size, self.grid))

        panels = [
            Panel("original", batch.image.float()),
            picture("masked", patches.masked_fill(hidden, 0.0)),
        ]
        drawn = self.tokenizer.draw(ctx.prepared["codes"], patches)
        if drawn is not None:
            logits = self.forward(batch, masks, ctx).prediction
            assert logits is not None
            codes = ctx.prepared["codes"].scatter(1, mask.masked, logits.argmax(-1))
            rebuilt = self.tokenizer.draw(codes, patches)
            assert rebuilt is not None
            note = self.tokenizer.drawing_note
            panels.append(picture(f"its codes{note}", drawn))
            panels.append(picture("codes rebuilt + visible", rebuilt.where(hidden, patches)))
        return panels

    # --- published checkpoints (Atten4Vis/CAE; lxtGH/CAE can be imported too) ---

    def export_reference(self) -> dict[str, Tensor]:
        """Atten4Vis' layout, including its copy of the encoder for the alignment."""
        state = {
            to_published(name): tensor
            for name, tensor in self.state_dict().items()
            if not name.startswith("tokenizer.")
        }
        copies = {
            f"alignment_{name}": tensor.clone()
            for name, tensor in state.items()
            if name.startswith("encoder.")
        }
        return state | copies

    @classmethod
    def import_reference(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Either published layout, without the copy of the encoder."""
        return {
            from_published(name): tensor
            for name, tensor in state.items()
            if not name.startswith(COPIES)
        }


COPIES = ("alignment_encoder.", "teacher.")  # copies of the encoder: equal to it, or a step behind

# Name prefixes: ours, Atten4Vis/CAE's, lxtGH/CAE's. No prefix starts with another one.
_NAMES = (
    ("regressor.mask_token", "mask_token", "mask_token"),
    ("regressor.pos_embed", "rd_pos_embed", "rd_pos_embed"),
    ("regressor.embed.", "encoder_to_regresser.", "encoder_to_decoder."),
    ("regressor.embed_norm.", "encoder_to_regresser_norm.", "encoder_to_decoder_norm."),
    ("regressor.blocks.", "regresser.regressor_blocks.", "pretext_neck.regressor_blocks."),
    ("regressor.norm.", "regresser.norm.", "pretext_neck.norm."),
    ("decoder.blocks.", "decoder.decoder_blocks.", "pretext_neck.decoder_blocks."),
    ("decoder.norm.", "decoder.norm.", "pretext_neck.norm2."),
    ("decoder.head.", "decoder.head.", "pretext_neck.head."),
)


def to_published(name: str, first: bool = False) -> str:
    """Our name -> Atten4Vis/CAE's, or with ``first`` the earlier lxtGH/CAE's."""
    for ours, second_layout, first_layout in _NAMES:
        if name.startswith(ours):
            return (first_layout if first else second_layout) + name.removeprefix(ours)
    return name


def from_published(name: str) -> str:
    """A name of either layout -> ours; unknown names are unchanged."""
    for ours, *layouts in _NAMES:
        for theirs in layouts:
            if name.startswith(theirs):
                return ours + name.removeprefix(theirs)
    return name
