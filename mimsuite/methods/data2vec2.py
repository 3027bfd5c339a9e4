"""data2vec 2.0: Efficient Self-supervised Learning with Contextualized Target Representations
(Baevski et al., arXiv:2212.07525, section 3), for images.

Each image gets several masks that hide most patches. The encoder sees the visible patches of each
mask, and a convolutional decoder predicts the teacher's features at the hidden patches. The teacher
is a momentum copy of the encoder that sees the whole image, once for all masks; its features are
the MLP outputs averaged over its last blocks. The class token predicts the mean of the targets.

``encoder`` is the trained one, which published fine-tuning uses. ``teacher`` follows it.

Letters: B batch, R masks per image, N patches, V visible, M masked, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.config.keys.encoders import ConvDecoderSection, PostNormViTSection
from mimsuite.config.keys.masks import SquareBlockMaskSection
from mimsuite.config.keys.section import Dimension, Fraction, Positive, Section, require_divides
from mimsuite.config.keys.shared import MethodCard, MethodSection, Recipe
from mimsuite.masking import SquareBlockSampler, TokenMask, gather_tokens
from mimsuite.methods.base import Context, Method, Output, Panel, Progress, no_gather
from mimsuite.models import ConvDecoder, PostNormViT
from mimsuite.models.momentum import MomentumCopy, rising
from mimsuite.models.post_norm_vit import published_names, stem_and_depth
from mimsuite.noise import Noise
from mimsuite.targets import average_layers, channel_deviation, feature_pictures
from mimsuite.weights.names import Names


class Data2Vec2Section(MethodSection):
    """`method:` number of masks per image, and momentum of the teacher."""

    name: Literal["data2vec2"]
    clones: Positive = 16  # masks per image; the teacher runs once for all of them
    # Momentum of the teacher: at the first step, and from `momentum_steps` on; linear in between.
    momentum: tuple[Fraction, Fraction]
    momentum_steps: Positive  # optimizer steps until the final momentum


class ConvAutoencoderSection(Section):
    """`model:` an encoder, its momentum copy, and a decoder of latents."""

    encoder: PostNormViTSection = PostNormViTSection()
    decoder: ConvDecoderSection = ConvDecoderSection()


class LayersTargetSection(Section):
    """`target:` the MLP outputs of the teacher's last blocks, averaged over blocks."""

    kind: Literal["layers"] = "layers"
    layers: Dimension  # number of last blocks to average
    class_weight: Annotated[float, Field(ge=0.0)] = 0.01  # weight of the class token's error
    # Rows (masks times images) over which that error is summed. null: those of the micro-batch, as
    # published, so its weight grows with train.micro_batch.
    class_rows: Positive | None = None


class Data2Vec2Recipe(Recipe):
    """A recipe for data2vec 2.0 pretraining."""

    card: ClassVar[MethodCard] = MethodCard("arXiv:2212.07525", "verified", ("step", "trajectory"))

    method: Data2Vec2Section
    model: ConvAutoencoderSection
    mask: SquareBlockMaskSection
    target: LayersTargetSection

    @model_validator(mode="after")
    def _fits(self) -> Data2Vec2Recipe:
        encoder, decoder = self.model.encoder, self.model.decoder
        self.mask.require_grid(encoder.grid)
        main = encoder.depth - encoder.prenet
        if self.target.layers > main:
            raise ValueError(
                f"target.layers {self.target.layers}: after model.encoder.prenet there are "
                f"{main} blocks"
            )
        require_divides(
            "model.decoder.groups", decoder.groups, "model.encoder.width", encoder.width
        )
        if encoder.drop_path:
            raise ValueError("model.encoder.drop_path: masks of an image share its noise; set 0")
        return self


class Data2Vec2(Method):
    """Predicts its momentum copy's averaged block features of hidden patches."""

    Recipe: ClassVar[type[Data2Vec2Recipe]] = Data2Vec2Recipe
    collapse_terms = ("target_deviation", "prediction_deviation", "rankme")
    recipe: Data2Vec2Recipe
    encoder: PostNormViT

    def __init__(self, recipe: Data2Vec2Recipe) -> None:
        super().__init__(recipe)
        model = recipe.model
        self.grid, self.patch_size = model.encoder.grid, model.encoder.patch_size
        self.sampler = SquareBlockSampler(recipe.mask)
        self.encoder = PostNormViT(model.encoder)
        self.decoder = ConvDecoder(model.decoder, model.encoder.width)
        self.teacher = MomentumCopy(self.encoder)

    def prepare(
        self, batch: Batch, noise: Noise, gather: Callable[[Tensor], Tensor] = no_gather
    ) -> Context:
        """The teacher's features of the unmasked images, ``target`` (B, N, D), for all masks."""
        teacher = self.teacher.module
        assert isinstance(teacher, PostNormViT)
        with torch.no_grad():
            layers = teacher.mlp_outputs(teacher.patches(batch.image), self.recipe.target.layers)
            target = average_layers(layers)
        return Context(noise, gather, {"target": target})

    def mask(self, batch: Batch, noise: Noise, ctx: Context) -> dict[str, TokenMask]:
        names = (f"clone{number}" for number in range(1, self.recipe.method.clones + 1))
        return {name: self.sampler.sample(noise.within(name), self.grid) for name in names}

    def forward(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> Output:
        """``prediction`` is (B R, M, D), with the masks of an image side by side."""
        target = ctx.prepared["target"]
        cls, found = self.predict(batch, masks, ctx)
        ids = torch.cat([mask.masked for mask in masks.values()], dim=1)  # (B, R M)
        wanted = gather_tokens(target, ids).view_as(found)
        regression, class_token = self.losses(cls, found, target, wanted)
        terms = {
            "regression": regression.detach(),
            "class_token": class_token.detach(),
            "target_deviation": channel_deviation(target, ctx.gather),
            "prediction_deviation": channel_deviation(found, ctx.gather),
        }
        return Output(regression + class_token, terms, found, masks)

    def predict(
        self, batch: Batch, masks: dict[str, TokenMask], ctx: Context
    ) -> tuple[Tensor, Tensor]:
        """(B R, D) class tokens and (B R, M, D) predictions of the masked tokens."""
        joined = TokenMask.interleaved(list(masks.values()))
        ids = joined.visible.unflatten(0, (len(batch), -1)).flatten(1)  # (B, R V)
        patches = self.encoder.patches(batch.image, ids)
        patches = patches.unflatten(1, (len(masks), -1)).flatten(0, 1)  # (B R, V, P)
        latent = self.encoder(patches, joined.visible)
        return latent.cls[:, 0], self.decoder(latent.tokens, joined, self._fill(masks, ctx.noise))

    def losses(
        self, cls: Tensor, found: Tensor, target: Tensor, wanted: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Errors of the masked tokens (a mean) and of the class token (a sum over rows). Squares
        are summed over the width and divided by its square root."""
        section, root = self.recipe.target, cls.shape[-1] ** 0.5
        regression = (found.float() - wanted).square().sum(-1).mean() / root
        mean = target.mean(dim=1).repeat_interleave(len(cls) // len(target), dim=0)
        rows = (cls.float() - mean).square().sum(-1) / root  # (B R,)
        return regression, section.class_weight * rows.mean() * (section.class_rows or len(rows))

    def _fill(self, masks: dict[str, TokenMask], noise: Noise) -> Tensor:
        """(B R, M, D) noise in place of the masked tokens, float32."""
        width = self.encoder.width
        drawn = [
            noise.within(name).normal("fill", mask.masked.shape[1] * width)
            for name, mask in masks.items()
        ]
        rows = torch.stack(drawn, dim=1).flatten(0, 1)  # (B R, M D)
        return self.recipe.model.decoder.noise * rows.unflatten(1, (-1, width))

    def scheduled(self, progress: Progress) -> dict[str, float]:
        """The momentum of the teacher's latest update."""
        return {"momentum": self._momentum(progress.step)}

    def after_step(self, progress: Progress) -> None:
        """Move the teacher at the start of the next step; the last update never reaches it."""
        if progress.step + 1 < progress.total:
            self.teacher.follow(self.encoder, self._momentum(progress.step + 1), progress.skipped)

    def _momentum(self, step: int) -> float:
        first, last = self.recipe.method.momentum
        return rising(step, first, last, self.recipe.method.momentum_steps)

    def init_aliases(self) -> dict[str, str]:
        """The teacher is initialised from the encoder if the weights have no teacher."""
        return {f"teacher.module.{name}": f"encoder.{name}" for name in self.encoder.state_dict()}

    def panels(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> list[Panel]:
        """Original, masked by the first mask, the teacher's and the predicted features."""
        name, mask = next(iter(masks.items()))
        _, found = self.predict(batch, {name: mask}, ctx)
        augment = self.recipe.augment
        pictures = feature_pictures(
            batch.image,
            mask,
            self.patch_size,
            ctx.prepared["target"],
            (found, mask.masked),
            (augment.mean, augment.std),
        )
        return [Panel(title, images) for title, images in pictures.items()]

    # --- published checkpoints (facebookresearch/fairseq examples/data2vec) ---

    def export_reference(self) -> dict[str, Tensor]:
        section = self.recipe.model.encoder
        names = _names(section.prenet, section.depth)
        return {names.published(name): tensor for name, tensor in self.state_dict().items()}

    @classmethod
    def import_reference(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        names = _names(*stem_and_depth(state))
        return {names.ours(name): tensor for name, tensor in state.items()}


def _names(prenet: int, depth: int) -> Names:
    decoder = "modality_encoders.IMAGE.decoder."
    return Names(
        [
            ("decoder.blocks.{}.conv.", decoder + "blocks.{}.0."),
            ("decoder.proj.", f"{decoder}proj."),
            *published_names("encoder.", "", prenet, depth),
            *published_names("teacher.module.", "_ema.", prenet, depth),
        ]
    )
