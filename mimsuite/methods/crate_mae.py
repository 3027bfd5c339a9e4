"""CRATE-MAE: Masked Completion via Structured Diffusion with White-Box Transformers (Pai et al.,
arXiv:2404.02446).

MAE's masking, target and loss on CRATE blocks, with one difference: mask tokens enter before the
encoder, so it processes all tokens. Encoder and decoder have the same width, and the decoder has no
embedding and no positions of its own.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import model_validator
from torch import nn

from mimsuite.batch import Batch
from mimsuite.config.keys.encoders import CrateSection
from mimsuite.config.keys.section import Dimension, Section, require_divides
from mimsuite.config.keys.shared import MethodCard, MethodSection
from mimsuite.masking import RandomSampler, TokenMask
from mimsuite.methods.base import Context, Method
from mimsuite.methods.mae import MAE, MAERecipe
from mimsuite.models import Crate, CrateDecoder, Features
from mimsuite.targets import PixelTarget
from mimsuite.weights.names import Names


class CrateMAESection(MethodSection):
    """`method:` CRATE-MAE has no keys of its own."""

    name: Literal["crate-mae"]


class CrateDecoderSection(Section):
    """Blocks that invert the encoder's, with the same width."""

    depth: Dimension = 12
    heads: Dimension = 12


class CrateAutoencoderSection(Section):
    """`model:` a CRATE encoder of visible and mask tokens, and a decoder."""

    encoder: CrateSection = CrateSection()
    decoder: CrateDecoderSection = CrateDecoderSection()

    @model_validator(mode="after")
    def _fits(self) -> CrateAutoencoderSection:
        require_divides("decoder.heads", self.decoder.heads, "encoder.width", self.encoder.width)
        return self


class CrateMAERecipe(MAERecipe):
    """A recipe for CRATE-MAE pretraining."""

    card: ClassVar[MethodCard] = MethodCard("arXiv:2404.02446", "verified", ("step",))

    method: CrateMAESection  # type: ignore[assignment]
    model: CrateAutoencoderSection  # type: ignore[assignment]


class CrateMAE(MAE):
    """Masked autoencoder of CRATE blocks.

    ``unused`` holds tensors that published checkpoints store and published code never reads: a
    second position table and an embedding before the decoder. They are frozen, for the export.
    """

    Recipe = CrateMAERecipe
    # Published checkpoints: Ma-Lab-Berkeley/CRATE, mae_crate_*
    names = Names(
        [
            ("encoder.cls_token", "cls_token"),
            ("encoder.pos_embed", "decoder_pos_embed"),  # the table added before the encoder
            ("encoder.patch_embed.", "patch_embed."),
            ("encoder.blocks.{}.norm1.", "blocks.{}.layers.0.0.norm."),
            ("encoder.blocks.{}.attn.qkv.", "blocks.{}.layers.0.0.fn.qkv."),
            ("encoder.blocks.{}.attn.proj.", "blocks.{}.layers.0.0.fn.to_out.0."),
            ("encoder.blocks.{}.norm2.", "blocks.{}.layers.0.1.norm."),
            ("encoder.blocks.{}.ista.", "blocks.{}.layers.0.1.fn."),
            ("encoder.norm.", "norm."),
            ("mask_token", "mask_token"),
            ("decoder.blocks.{}.norm1.", "decoder_blocks.{}.layers.0.0.norm."),
            ("decoder.blocks.{}.dictionary.", "decoder_blocks.{}.layers.0.0.fn."),
            ("decoder.blocks.{}.norm2.", "decoder_blocks.{}.layers.0.1.norm."),
            ("decoder.blocks.{}.attn.qkv.", "decoder_blocks.{}.layers.0.1.fn.qkv."),
            ("decoder.blocks.{}.attn.proj.", "decoder_blocks.{}.layers.0.1.fn.to_out.0."),
            ("unused.pos_embed", "pos_embed"),
            ("unused.embed.", "decoder_embed."),
            ("decoder.", "decoder_"),
        ]
    )
    encoder: Crate
    decoder: CrateDecoder  # type: ignore[assignment]

    def __init__(self, recipe: CrateMAERecipe) -> None:
        Method.__init__(self, recipe)
        section, decoder = recipe.model.encoder, recipe.model.decoder
        self.grid, self.patch_size = section.grid, section.patch_size
        self.sampler = RandomSampler(recipe.mask)
        self.target = PixelTarget(recipe.target)
        self.encoder = Crate(section)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, section.width))
        nn.init.normal_(self.mask_token, std=0.02)
        self.decoder = CrateDecoder(
            section.width,
            decoder.depth,
            decoder.heads,
            out_width=section.patch_size**2 * section.in_channels,
            eps=section.norm_eps,
            final_eps=section.final_norm_eps,
        )
        self.unused = nn.Module()
        self.unused.pos_embed = nn.Parameter(self.encoder.pos_embed.detach().clone())
        self.unused.embed = nn.Linear(section.width, section.width)
        self.unused.requires_grad_(False)

    def latent(self, batch: Batch, mask: TokenMask, ctx: Context) -> Features:
        """The encoder's output for all tokens, visible ones first."""
        visible = self.encoder.patches(batch.image, mask.visible)  # (B, V, P)
        return self.encoder(visible, mask.visible, fill=(self.mask_token, mask.masked))

    def unused_parameters(self) -> set[str]:
        return {"unused.embed.weight", "unused.embed.bias"}
