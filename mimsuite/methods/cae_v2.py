"""CAE v2: Context Autoencoder with CLIP Target (Zhang et al., arXiv:2211.09799).

CAE's encoder and regressor, without its decoder and codes. One norm and linear map, shared by the
class token, the visible patches and the predicted masked patches, predicts the features of a frozen
teacher that sees the whole image. The loss is 1 - cosine over all of these tokens.

Letters: B batch, N patches, V visible, M masked, D width of the regressor, E of the teacher.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar, Literal

import torch
from pydantic import model_validator
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.config.keys.cae import RegressorSection
from mimsuite.config.keys.encoders import BEiTSection
from mimsuite.config.keys.masks import ImageMaskSection, require_both
from mimsuite.config.keys.section import Section
from mimsuite.config.keys.shared import MethodCard, MethodSection, Recipe
from mimsuite.config.keys.targets import FeatureTargetSection
from mimsuite.config.keys.teachers import check_teacher
from mimsuite.masking import TokenMask, build_sampler
from mimsuite.methods.base import Context, Method, Output, Panel, no_gather
from mimsuite.methods.cae import COPIES, from_published, to_published
from mimsuite.models import BEiT, FeatureHead, Regressor
from mimsuite.models.teachers import TeacherFeatures, build_teacher
from mimsuite.noise import Noise
from mimsuite.targets import FeatureTarget, feature_pictures


class CAEv2Section(MethodSection):
    """`method:` CAE v2 has no keys of its own."""

    name: Literal["cae-v2"]


class CAEv2ModelSection(Section):
    """`model:` encoder of the visible patches, regressor of the masked patches."""

    encoder: BEiTSection
    regressor: RegressorSection


class CAEv2Recipe(Recipe):
    """A recipe for CAE v2 pretraining."""

    card: ClassVar[MethodCard] = MethodCard("arXiv:2211.09799", "verified", ("step",))

    method: CAEv2Section
    model: CAEv2ModelSection
    mask: ImageMaskSection
    target: FeatureTargetSection

    @model_validator(mode="after")
    def _student_and_teacher_fit(self) -> CAEv2Recipe:
        encoder = self.model.encoder
        if encoder.relative_positions:
            raise ValueError(
                "model.encoder.relative_positions needs whole images: set it for fine-tuning only"
            )
        tokens = encoder.grid[0] * encoder.grid[1]
        visible = self.mask.visible(tokens)
        require_both("mask.ratio or mask.count", visible, tokens, "patches")
        check_teacher(self.target.teacher, encoder.grid, encoder.in_channels, augment=self.augment)
        return self


class CAEv2(Method):
    """Encoder and regressor that predict a teacher's features of every token."""

    Recipe = CAEv2Recipe
    encoder: BEiT

    def __init__(self, recipe: CAEv2Recipe) -> None:
        super().__init__(recipe)
        section, regressor = recipe.model.encoder, recipe.model.regressor
        self.grid = section.grid
        self.sampler = build_sampler(recipe.mask)
        self.sampler.require_reachable(self.grid)
        self.target = FeatureTarget(recipe.target)
        self.teacher = build_teacher(recipe.target.teacher, section.grid, recipe.augment)
        eps = section.norm_eps
        self.encoder = BEiT(section)
        self.regressor = Regressor(regressor, section.width, self.grid, eps, final_norm=False)
        self.decoder = FeatureHead(regressor.width, self.teacher.width, eps)

    def setup(self, batches: Callable[[], Iterable[Batch]] | None) -> list[str]:
        return self.teacher.open()

    def prepare(
        self, batch: Batch, noise: Noise, gather: Callable[[Tensor], Tensor] = no_gather
    ) -> Context:
        """The teacher's features of the unmasked images, ``teacher``."""
        keys = batch.keys if self.training else None
        return Context(noise, gather, {"teacher": self.teacher.features(batch.image, keys=keys)})

    def mask(self, batch: Batch, noise: Noise, ctx: Context) -> dict[str, TokenMask]:
        return {"image": self.sampler.sample(noise, self.grid)}

    def forward(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> Output:
        """1 - cosine over all tokens; ``prediction`` is (B, 1 + V + M, E), class token first if the
        teacher has one."""
        mask = masks["image"]
        prediction = self.predict(batch, mask, ctx)
        loss = self.target.loss(prediction, self.targets(ctx.prepared["teacher"], mask))
        return Output(loss, {"features": loss.detach()}, prediction, masks)

    def predict(self, batch: Batch, mask: TokenMask, ctx: Context) -> Tensor:
        """Features [class, visible, masked], (B, 1 + N, E); (B, N, E) if the teacher has no class
        token."""
        patches = self.encoder.patches(batch.image, mask.visible)
        seen = self.encoder(patches, mask.visible, noise=ctx.noise)
        visible = self.regressor.project(seen.tokens)
        latents = self.regressor(visible, mask, ctx.noise.within("regressor"))
        parts = [visible, latents]
        if ctx.prepared["teacher"].cls is not None:
            parts.insert(0, self.regressor.project(seen.cls))
        return self.decoder(torch.cat(parts, dim=1))

    def targets(self, found: TeacherFeatures, mask: TokenMask) -> Tensor:
        """The teacher's features in the order of the prediction, normalised."""
        parts = [mask.gather(found.tokens, "visible"), mask.gather(found.tokens, "masked")]
        if found.cls is not None:
            parts.insert(0, found.cls.unsqueeze(1))
        return self.target(torch.cat(parts, dim=1))

    def panels(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> list[Panel]:
        """Original, masked, and as colours the teacher's and the predicted features."""
        mask, found = masks["image"], ctx.prepared["teacher"]
        prediction = self.predict(batch, mask, ctx)[:, -mask.tokens :]
        pictures = feature_pictures(
            batch.image,
            mask,
            self.encoder.section.patch_size,
            self.target(found.tokens),
            (prediction, torch.cat([mask.visible, mask.masked], dim=1)),
            self.teacher.statistics,
        )
        return [Panel(title, images) for title, images in pictures.items()]

    # --- for the optimizer ---

    def unused_parameters(self) -> set[str]:
        """The norm after the regressor, which CAE uses and CAE v2 only stores."""
        return {"regressor.norm.weight", "regressor.norm.bias"}

    # --- published checkpoints (Atten4Vis/CAE) ---

    def export_reference(self) -> dict[str, Tensor]:
        """Includes the copy of the encoder, which published CAE v2 stores but does not use."""
        state = {to_published(name): tensor for name, tensor in self.state_dict().items()}
        encoder = {k: v for k, v in state.items() if k.startswith("encoder.")}
        return state | {f"alignment_{name}": tensor.clone() for name, tensor in encoder.items()}

    @classmethod
    def import_reference(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Leaves out the copy of the encoder."""
        return {
            from_published(name): tensor
            for name, tensor in state.items()
            if not name.startswith(COPIES)
        }
