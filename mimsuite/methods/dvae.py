"""dVAE: a discrete variational autoencoder, used as a tokenizer for CAE.

Stage one of DALL-E (Ramesh et al., arXiv:2102.12092, section 2.1): an encoder predicts a
distribution over K codes at every grid position, and a decoder reconstructs the image from one code
per position. A Gumbel-softmax relaxation makes the choice differentiable; its temperature falls
during training. A KL term pulls the distributions towards uniform, which keeps codes in use.
Nothing is masked.

Unlike DALL-E's, this decoder predicts pixels, with a squared, absolute or smooth-L1 error, instead
of the parameters of a logit-Laplace distribution, and there are fewer convolutions.

Letters: B batch, C channels, h x w codes, N = h * w, K size of the vocabulary.
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
from mimsuite.targets.relaxation import eased, kl_to_uniform, perplexity, relaxed
from mimsuite.tokens import unnormalized

Above = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=0)]


class DVAESection(MethodSection):
    """`method:` schedule of the Gumbel-softmax temperature."""

    name: Literal["dvae"]
    temperature: tuple[Above, Above] = (1.0, 0.0625)  # at the first step, and finally
    # Steps until the final temperature, along half a cosine; null: the whole training.
    temperature_steps: Count | None = None


class DVAEMaskSection(Section):
    """`mask:` nothing is masked."""

    kind: Literal["none"] = "none"


class DVAETargetSection(Section):
    """`target:` all pixels of the image, and the KL term of the codes."""

    kind: Literal["pixels"] = "pixels"
    loss: Literal["mse", "l1", "smooth-l1"] = "mse"  # per value of the normalised image
    # Weight of the codes' KL divergence from uniform: its sum over an image's codes, divided by the
    # number of values of the image, like the pixel error.
    kl_weight: Annotated[float, Field(ge=0.0)]
    kl_steps: Count = 0  # steps over which that weight rises from 0, along half a cosine


class DVAERecipe(Recipe):
    """A recipe for a discrete autoencoder."""

    card: ClassVar[MethodCard] = MethodCard("arXiv:2102.12092", "experimental")

    method: DVAESection
    model: CodeModelSection
    mask: DVAEMaskSection = DVAEMaskSection()
    target: DVAETargetSection


class DVAE(Method):
    """An encoder from images to codes, and a decoder back."""

    Recipe = DVAERecipe
    encoder: CodeEncoder

    def __init__(self, recipe: DVAERecipe) -> None:
        super().__init__(recipe)
        model = recipe.model
        self.method, self.target = recipe.method, recipe.target
        self.encoder = CodeEncoder(model.encoder)
        self.decoder = CodeDecoder(model.decoder, model.encoder)

    def forward(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> Output:
        """Reconstruction error plus weighted divergence of the codes; ``prediction`` is the image
        (B, C, H, W)."""
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
        """(B, C, H, W) normalised images -> (B, h, w) int64, the likeliest code per position."""
        codes: Tensor = self.encoder(images).argmax(1)
        return codes

    @property
    def vocabulary(self) -> int:
        """Number of codes."""
        return self.encoder.section.codes

    def drawn(self, codes: Tensor) -> Tensor:
        """(B, h, w) codes -> (B, C, H, W) pixels in [0, 1]."""
        augment = self.recipe.augment
        return unnormalized(self.decoder.draw(codes), augment.mean, augment.std).clamp(0, 1)

    def panels(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> list[Panel]:
        """Original, and the reconstruction from its codes."""
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
