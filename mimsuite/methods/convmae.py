"""ConvMAE, also MCMAE: Masked Convolution Meets Masked Autoencoders (Gao et al., arXiv:2205.03892).

MAE with an encoder that begins with convolutions (section 3.2 of the paper, figure 2):

* block-wise masking: the mask is drawn on the last stage's grid; each masked token covers a whole
  block on the finer grids of the convolution stages;
* masked convolution: a depthwise convolution reads zeros at masked tokens, so nothing leaks from
  them into visible ones;
* multi-scale fusion: strided convolutions map both stages to the last stage's grid and add them to
  its output for the decoder. Transfers leave them out.

The encoder, :mod:`mimsuite.models.conv_vit`, implements the first two; it has no class token.
Target, loss and decoder are MAE's.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from mimsuite.config.keys.encoders import AnyDecoderSection, ConvViTSection, DecoderSection
from mimsuite.config.keys.section import Section
from mimsuite.config.keys.shared import MethodCard, MethodSection
from mimsuite.methods.mae import DECODER_NAMES, MAE, MAERecipe
from mimsuite.models import ConvViT
from mimsuite.weights.names import Names


class ConvMAESection(MethodSection):
    """`method:` ConvMAE has no keys of its own."""

    name: Literal["convmae"]


class ConvAutoencoderSection(Section):
    """`model:` a convolutional encoder of the visible tokens, a decoder of the masked tokens."""

    encoder: ConvViTSection = ConvViTSection()
    decoder: AnyDecoderSection = DecoderSection()


class ConvMAERecipe(MAERecipe):
    """A recipe for ConvMAE pretraining."""

    card: ClassVar[MethodCard] = MethodCard("arXiv:2205.03892", "verified", ("step",))

    method: ConvMAESection  # type: ignore[assignment]
    model: ConvAutoencoderSection  # type: ignore[assignment]


class ConvMAE(MAE):
    """Masked autoencoder on a ConvViT."""

    Recipe = ConvMAERecipe
    # Published checkpoints: Alpha-VL/ConvMAE
    names = Names([*ConvViT.published.pairs, *DECODER_NAMES])
    encoder: ConvViT
