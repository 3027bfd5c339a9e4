"""MaskAlign: Stare at What You See (Xue et al., CVPR 2023, arXiv:2211.08887).

The student encodes only the visible patches; it has no decoder and no mask tokens. A trained matrix
mixes its block outputs, and one linear head per level maps them to the block outputs of a frozen
teacher that sees the whole image (section 3.2, "dynamic alignment"). The loss covers visible tokens
and the class token. Visible patches are drawn in proportion to the teacher's attention (section
3.1).

Letters: B batch, V visible, N patches, D width of the student, E of the teacher, T levels of the
teacher, S blocks of the student.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar, Literal

import torch
from pydantic import model_validator
from torch import Tensor, nn

from mimsuite.batch import Batch
from mimsuite.config.keys.encoders import ViTSection
from mimsuite.config.keys.masks import GuidedMaskSection
from mimsuite.config.keys.section import Section
from mimsuite.config.keys.shared import MethodCard, MethodSection, Recipe
from mimsuite.config.keys.targets import FeatureTargetSection
from mimsuite.config.keys.teachers import check_attention, check_teacher
from mimsuite.masking import TokenMask, build_sampler
from mimsuite.methods.base import Context, Method, Output, Panel, no_gather
from mimsuite.models import ViT
from mimsuite.models.alignment import Alignment
from mimsuite.models.teachers import TeacherFeatures, build_teacher
from mimsuite.noise import Noise
from mimsuite.targets import FeatureTarget, feature_pictures
from mimsuite.weights.names import Names


class MaskAlignMethodSection(MethodSection):
    """`method:` MaskAlign has no keys of its own."""

    name: Literal["mask-align"]


class AlignedModelSection(Section):
    """`model:` an encoder, and the alignment of its blocks with the teacher's."""

    encoder: ViTSection = ViTSection()
    fusion: Literal["linear", "sum", "none"]  # mixing of block outputs before the heads
    head: Literal["linear", "norm-linear", "mlp", "mlp2"] = "linear"  # one head per level


class AlignedTargetSection(FeatureTargetSection):
    """`target:` outputs of the teacher's blocks."""

    levels: Literal["top5", "mean", "last"]  # its last five blocks, all, or the last


class MaskAlignRecipe(Recipe):
    """A recipe for MaskAlign pretraining."""

    card: ClassVar[MethodCard] = MethodCard("arXiv:2211.08887", "verified", ("step",), 2)

    method: MaskAlignMethodSection
    model: AlignedModelSection
    mask: GuidedMaskSection
    target: AlignedTargetSection

    @model_validator(mode="after")
    def _student_and_teacher_fit(self) -> MaskAlignRecipe:
        encoder, teacher = self.model.encoder, self.target.teacher
        rows, columns = encoder.grid
        if self.mask.visible(rows * columns) == 0:
            raise ValueError(
                f"mask.ratio {self.mask.ratio} leaves none of {rows * columns} visible"
            )
        check_teacher(teacher, encoder.grid, encoder.in_channels, augment=self.augment)
        if self.mask.kind == "attentive":
            check_attention(teacher, "mask.kind=attentive", "set mask.kind=random")
        levels = max(1, teacher.blocks)
        if self.model.fusion == "linear" and levels != encoder.depth:
            raise ValueError(
                f"model.fusion=linear pairs blocks one to one: target.teacher has {levels}, "
                f"model.encoder.depth is {encoder.depth}: set model.fusion=sum"
            )
        used = {"top5": 5, "mean": levels, "last": 1}[self.target.levels]
        if used > levels:
            raise ValueError(
                f"target.levels=top5 needs five blocks, target.teacher has {levels}: set "
                f"target.levels=mean or last"
            )
        if self.model.fusion == "none" and used > encoder.depth:
            raise ValueError(
                f"model.fusion=none pairs blocks from the last: target.levels="
                f"{self.target.levels} needs {used}, model.encoder.depth is {encoder.depth}: set "
                f"model.fusion=sum"
            )
        return self


class MaskAlign(Method):
    """An encoder of visible patches, aligned with a frozen teacher."""

    Recipe = MaskAlignRecipe
    names = Names(
        [
            ("alignment.weights", "distill_weights"),
            ("alignment.heads.", "distill_heads."),
            ("encoder.", ""),
        ]
    )
    encoder: ViT

    def __init__(self, recipe: MaskAlignRecipe) -> None:
        super().__init__(recipe)
        section, target = recipe.model.encoder, recipe.target
        self.grid, self.attentive = section.grid, recipe.mask.kind == "attentive"
        self.sampler = build_sampler(recipe.mask)
        self.target = FeatureTarget(target)
        self.teacher = build_teacher(target.teacher, section.grid, recipe.augment)
        # A convolutional teacher has one level, its feature map.
        levels = max(1, self.teacher.depth)
        first = {"top5": levels - 4, "mean": 1, "last": levels}[target.levels]
        self.levels = range(first, levels + 1)  # teacher levels, counted from 1
        self.encoder = ViT(section)
        self.alignment = Alignment(
            recipe.model.fusion,
            recipe.model.head,
            student=(section.depth, section.width),
            teacher=(levels, self.teacher.width),
            levels=self.levels,
        )
        self.encoder.norm.requires_grad_(False)  # the loss reads block outputs before the norm

    def setup(self, batches: Callable[[], Iterable[Batch]] | None) -> list[str]:
        return self.teacher.open()

    def prepare(
        self, batch: Batch, noise: Noise, gather: Callable[[Tensor], Tensor] = no_gather
    ) -> Context:
        """The teacher's features of the unmasked images, ``teacher``."""
        levels = self.levels if self.teacher.depth else ()
        keys = batch.keys if self.training else None
        found = self.teacher.features(
            batch.image, hidden=levels, cls_attention=self.attentive, keys=keys
        )
        return Context(noise, gather, {"teacher": found})

    def mask(self, batch: Batch, noise: Noise, ctx: Context) -> dict[str, TokenMask]:
        guide = None
        if self.attentive:
            guide = ctx.prepared["teacher"].cls_attention.mean(dim=1)  # over heads, (B, N)
        return {"image": self.sampler.sample(noise, self.grid, guide)}

    def forward(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> Output:
        """Mean loss over the levels; ``prediction`` is the last level, (B, V, E), with the class
        token first if the teacher has one."""
        predictions = self.predict(batch, masks["image"], ctx)
        targets = self.targets(ctx.prepared["teacher"], masks["image"])
        losses = [self.target.loss(p, t) for p, t in zip(predictions, targets, strict=True)]
        loss = torch.stack(losses).mean()
        terms = {"alignment": loss.detach(), "last_level": losses[-1].detach()}
        return Output(loss, terms, predictions[-1], masks)

    def predict(self, batch: Batch, mask: TokenMask, ctx: Context) -> list[Tensor]:
        """The student's prediction of each used level, (B, 1 + V, E) or, without class token,
        (B, V, E)."""
        visible = self.encoder.patches(batch.image, mask.visible)
        wanted = self.alignment.blocks()
        features = self.encoder(visible, mask.visible, noise=ctx.noise, layers=wanted)
        outputs = {number: features.layers[number] for number in wanted}  # each (B, 1 + V, D)
        if _has_no_class_token(ctx.prepared["teacher"]):
            outputs = {number: tokens[:, 1:] for number, tokens in outputs.items()}
        return self.alignment(outputs)

    def targets(self, found: TeacherFeatures, mask: TokenMask) -> list[Tensor]:
        """The teacher's used levels at the visible tokens, normalised."""
        if _has_no_class_token(found):
            return [self.target(mask.gather(found.tokens, "visible"))]
        targets = []
        for number in self.levels:
            level = found.hidden[number]  # (B, C + N, E)
            split = level.shape[1] - mask.tokens
            kept = mask.gather(level[:, split:], "visible")
            targets.append(self.target(torch.cat([level[:, :1], kept], dim=1)))
        return targets

    def panels(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> list[Panel]:
        """Original, visible patches, and the last level of teacher and student."""
        found, mask = ctx.prepared["teacher"], masks["image"]
        whole = found.hidden[self.levels[-1]] if found.hidden else found.tokens
        prediction = self.predict(batch, mask, ctx)[-1][:, -mask.visible.shape[1] :]
        pictures = feature_pictures(
            batch.image,
            mask,
            self.encoder.section.patch_size,
            self.target(whole[:, -mask.tokens :]),
            (prediction, mask.visible),
            self.teacher.statistics,
        )
        return [Panel(title, images) for title, images in pictures.items()]

    # --- for the optimizer ---

    def no_weight_decay(self) -> set[str]:
        return {"alignment.weights"}

    def unused_parameters(self) -> set[str]:
        return {name for name, p in self.named_parameters() if _is_unread(name, p)}

    # --- published checkpoints (OpenDriveLab/maskalign) ---

    @classmethod
    def import_reference(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Leaves out the teacher's weights in a checkpoint, ``clip_model.*``."""
        kept = {k: tensor for k, tensor in state.items() if not k.startswith("clip_model.")}
        return super().import_reference(kept)


def _has_no_class_token(found: TeacherFeatures) -> bool:
    return not found.hidden


def _is_unread(name: str, parameter: nn.Parameter) -> bool:
    return not parameter.requires_grad and name.startswith(("encoder.norm.", "alignment.heads."))
