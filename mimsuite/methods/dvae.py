"""dVAE: a discrete variational autoencoder, whose codes are a tokenizer for CAE.

Stage one of DALL-E (Ramesh et al., arXiv:2102.12092, section 2.1): an encoder gives every place of
a grid a distribution over K codes; a decoder rebuilds the image from one code for each place. So
that the choice has a gradient it is a Gumbel-softmax relaxation, whose temperature falls as
training goes on; the distributions are drawn to equal chances, which keeps codes in use. Nothing
is masked.

Here the decoder predicts the pixels themselves under a squared, absolute or smooth-L1 error, where
DALL-E has the parameters of a logit-Laplace distribution, and the convolutions are fewer.

Letters: B batch, C channels, h x w codes, N = h * w, K codes of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.config.keys.dvae import CodeModelSection
from mimsuite.config.keys.section import Section
from mimsuite.config.keys.shared import MethodCard, MethodSection, Recipe
from mimsuite.masking import TokenMask
from mimsuite.methods.base import Context, Method, Output, Panel
from mimsuite.models.dvae import CodeDecoder, CodeEncoder
from mimsuite.noise import Noise
from mimsuite.targets.relaxation import eased, kl_to_uniform, perplexity, relaxed

Above = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=0)]


class DVAESection(MethodSection):
    """`method:` how soft the choice of a code is, step by step."""

    name: Literal["dvae"]
    temperature: tuple[Above, Above] = (1.0, 0.0625)  # of the first step and at the end
    # By which the end is reached, along half a cosine; null: all of the training.
    temperature_steps: Count | None = None


class DVAEMaskSection(Section):
    """`mask:` nothing is masked."""

    kind: Literal["none"] = "none"


class DVAETargetSection(Section):
    """`target:` all pixels of the image, and how evenly codes are to be used."""

    kind: Literal["pixels"] = "pixels"
    loss: Literal["mse", "l1", "smooth-l1"] = "mse"  # of each number of the normalised image
    # Factor of the codes' divergence from equal chances; the sum of an image's codes is divided by
    # the count of its numbers, as the error of its pixels is.
    kl_weight: Annotated[float, Field(ge=0.0)]
    kl_steps: Count = 0  # by which that factor is reached from 0, along half a cosine


class DVAERecipe(Recipe):
    """A recipe for a discrete autoencoder."""

    card: ClassVar[MethodCard] = MethodCard("arXiv:2102.12092", "experimental")

    method: DVAESection
    model: CodeModelSection
    mask: DVAEMaskSection = DVAEMaskSection()
    target: DVAETargetSection


class DVAE(Method):
    """An encoder of images to codes and a decoder back."""

    Recipe = DVAERecipe
    encoder: CodeEncoder

    def __init__(self, recipe: DVAERecipe) -> None:
        super().__init__(recipe)
        model = recipe.model
        self.method, self.target = recipe.method, recipe.target
        self.encoder = CodeEncoder(model.encoder)
        self.decoder = CodeDecoder(model.decoder, model.encoder)

    def mask(self, batch: Batch, noise: Noise, ctx: Context) -> dict[str, TokenMask]:
        """Nothing is masked."""
        return {}

    def forward(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> Output:
        """Error of the rebuilt image and weighted divergence of the codes; ``prediction`` is the
        image (B, C, H, W)."""
        scores = self.encoder(batch.image).permute(0, 2, 3, 1)  # (B, h, w, K)
        noise = ctx.noise.rows("gumbel", scores[0].numel()).view(scores.shape)
        step, (first, last) = ctx.noise.step, self.method.temperature
        steps = self.method.temperature_steps
        temperature = eased(step, ctx.progress.total if steps is None else steps, first, last)
        rebuilt = self.decoder(relaxed(scores, noise, temperature)).float()
        pixels = _LOSSES[self.target.loss](rebuilt, batch.image.float())
        divergence = kl_to_uniform(scores).flatten(1).sum(1).mean() / batch.image[0].numel()
        weight = eased(step, self.target.kl_steps, 0.0, self.target.kl_weight)
        terms = {
            "pixels": pixels.detach(),
            "divergence": divergence.detach(),
            "perplexity": perplexity(scores.detach()),
        }
        return Output(pixels + weight * divergence, terms, rebuilt, masks)

    def codes(self, images: Tensor) -> Tensor:
        """(B, C, H, W) normalised images -> (B, h, w) int64, the likeliest code of each place."""
        codes: Tensor = self.encoder(images).argmax(1)
        return codes

    def panels(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> list[Panel]:
        """Original, and what its codes alone give back."""
        rebuilt = self.decoder.draw(self.codes(batch.image))
        return [
            Panel("original", batch.image.float()),
            Panel("rebuilt from its codes", rebuilt.float()),
        ]


_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": F.mse_loss,
    "l1": F.l1_loss,
    "smooth-l1": F.smooth_l1_loss,
}
