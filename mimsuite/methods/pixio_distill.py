"""Distillation of Pixio (Yang, Li et al., arXiv:2512.15715): the released smaller encoders learn
from the largest one.

A frozen teacher sees the whole image; its last block's output before the last norm is the target.
The student sees all patches or whole squares of them. A projector maps its class tokens and visible
patches to the teacher's width.

Letters: B batch, N patches, V visible, C class tokens, D width of the student, E of the teacher.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar, Literal

import torch
from pydantic import model_validator
from torch import Tensor, nn

from mimsuite.batch import Batch
from mimsuite.config.keys.encoders import ViTSection
from mimsuite.config.keys.masks import RebuiltMaskSection
from mimsuite.config.keys.section import Section
from mimsuite.config.keys.shared import MethodCard, MethodSection, Recipe
from mimsuite.config.keys.targets import FeatureLossSection
from mimsuite.config.keys.teachers import TeacherSection, check_teacher
from mimsuite.errors import UserError
from mimsuite.masking import TokenMask, build_sampler
from mimsuite.methods.base import Context, Method, Output, Panel, no_gather
from mimsuite.models import ViT
from mimsuite.models.blocks import init_linear
from mimsuite.models.teachers import build_teacher
from mimsuite.noise import Noise
from mimsuite.targets import FeatureTarget, feature_pictures
from mimsuite.weights.names import Names

_EPS = 1e-5  # epsilon of the projector's norm; the encoder's is 1e-6


class PixioDistillSection(MethodSection):
    """`method:` distillation of Pixio has no keys of its own."""

    name: Literal["pixio-distill"]


class PixioStudentSection(Section):
    """`model:` the student; the width of its projector is the teacher's."""

    encoder: ViTSection = ViTSection()


class TeacherTokensSection(Section):
    """`target:` the teacher's last block before its norm: class tokens, and visible patches."""

    kind: Literal["teacher-tokens"] = "teacher-tokens"
    teacher: TeacherSection
    classes: FeatureLossSection  # loss of the class tokens, one to one
    patches: FeatureLossSection  # loss of the visible patches


class PixioDistillRecipe(Recipe):
    """A recipe for distilling Pixio."""

    card: ClassVar[MethodCard] = MethodCard("arXiv:2512.15715", "faithful")

    method: PixioDistillSection
    model: PixioStudentSection
    mask: RebuiltMaskSection
    target: TeacherTokensSection

    @model_validator(mode="after")
    def _student_and_teacher_fit(self) -> PixioDistillRecipe:
        encoder, teacher = self.model.encoder, self.target.teacher
        self.mask.require_grid(encoder.grid)
        rows, columns = encoder.grid
        if self.mask.visible(rows * columns) == 0:
            raise ValueError(
                f"mask.ratio {self.mask.ratio} leaves none of {rows * columns} patches visible"
            )
        check_teacher(teacher, encoder.grid, encoder.in_channels, augment=self.augment)
        if teacher.blocks == 0:
            raise ValueError(
                f"target.teacher.kind={teacher.kind} has no class tokens: choose a vision "
                f"transformer"
            )
        if encoder.class_tokens == 0:
            raise ValueError("model.encoder.class_tokens 0 leaves none to be distilled")
        return self


class PixioDistill(Method):
    """An encoder that predicts a frozen teacher's class tokens and patches."""

    Recipe = PixioDistillRecipe
    names = Names([("projector.", "last_proj."), ("encoder.", "")])
    encoder: ViT

    def __init__(self, recipe: PixioDistillRecipe) -> None:
        super().__init__(recipe)
        section, target = recipe.model.encoder, recipe.target
        self.grid = section.grid
        self.sampler = build_sampler(recipe.mask)
        self.teacher = build_teacher(target.teacher, section.grid, recipe.augment)
        self.classes, self.patches = FeatureTarget(target.classes), FeatureTarget(target.patches)
        self.encoder = ViT(section)
        width = self.teacher.width
        self.projector = nn.Sequential(
            nn.Linear(section.width, width),
            nn.LayerNorm(width, eps=_EPS),
            nn.GELU(),
            nn.Linear(width, width),
        )
        self.projector.apply(init_linear)

    def setup(self, batches: Callable[[], Iterable[Batch]] | None) -> list[str]:
        return self.teacher.open()

    def prepare(
        self, batch: Batch, noise: Noise, gather: Callable[[Tensor], Tensor] = no_gather
    ) -> Context:
        """The teacher's last block before its norm, ``teacher`` (B, C + N, E), of whole images."""
        last = self.teacher.depth
        keys = batch.keys if self.training else None
        found = self.teacher.features(batch.image, hidden=[last], keys=keys)
        return Context(noise, gather, {"teacher": found.hidden[last]})

    def mask(self, batch: Batch, noise: Noise, ctx: Context) -> dict[str, TokenMask]:
        return {"image": self.sampler.sample(noise, self.grid)}

    def forward(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> Output:
        """Weighted sum of the two losses; ``prediction`` is (B, C + V, E)."""
        mask, count = masks["image"], self.encoder.class_tokens
        prediction = self.predict(batch, mask, ctx)
        targets = self.targets(ctx.prepared["teacher"], mask)
        parts = {
            "classes": (self.classes, prediction[:, :count], targets[:, :count]),
            "patches": (self.patches, prediction[:, count:], targets[:, count:]),
        }
        losses = {
            name: target.loss(predicted, target(wanted))
            for name, (target, predicted, wanted) in parts.items()
        }
        terms = {name: loss.detach() for name, loss in losses.items()}
        return Output(losses["classes"] + losses["patches"], terms, prediction, masks)

    def predict(self, batch: Batch, mask: TokenMask, ctx: Context) -> Tensor:
        """The projected class tokens and visible patches, (B, C + V, E)."""
        visible = self.encoder.patches(batch.image, mask.visible)
        encoded = self.encoder(visible, mask.visible, noise=ctx.noise)
        projected: Tensor = self.projector(torch.cat([encoded.cls, encoded.tokens], dim=1))
        return projected

    def targets(self, teacher: Tensor, mask: TokenMask) -> Tensor:
        """The teacher's class tokens and visible patches, (B, C + V, E).

        Raises:
            UserError: student and teacher have different numbers of class tokens.
        """
        count, own = teacher.shape[1] - mask.tokens, self.encoder.class_tokens
        if count != own:
            raise UserError(
                f"class tokens are distilled one to one: target.teacher has {count}, the student "
                f"{own}: set model.encoder.class_tokens={count}"
            )
        kept = mask.gather(teacher[:, count:], "visible")
        return torch.cat([teacher[:, :count], kept], dim=1)

    def panels(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> list[Panel]:
        """Original, visible patches, and features of teacher and student."""
        mask, count = masks["image"], self.encoder.class_tokens
        pictures = feature_pictures(
            batch.image,
            mask,
            self.encoder.section.patch_size,
            self.patches(ctx.prepared["teacher"][:, -mask.tokens :]),
            (self.predict(batch, mask, ctx)[:, count:], mask.visible),
            self.teacher.statistics,
        )
        return [Panel(title, images) for title, images in pictures.items()]
