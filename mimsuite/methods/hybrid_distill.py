"""Hybrid Distillation (Shi et al., ICLR 2024, arXiv:2306.15876).

A student learns from two frozen teachers. From one trained by masked modelling it learns the
relations of tokens in intermediate blocks; from one trained with labels, captions or contrast, the
final features. Redundant tokens are dropped progressively, which saves compute.

No code was released. Details that the paper leaves open were chosen here; each choice is a key,
listed in the documentation (hybrid-distillation).

Letters: B batch, N patches, K survivors, D width, E width of the teacher's features, h heads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from mimsuite.batch import Batch
from mimsuite.config.keys.encoders import ViTSection
from mimsuite.config.keys.masks import RedundantMaskSection
from mimsuite.config.keys.section import Key, Positive, Section
from mimsuite.config.keys.shared import MethodCard, MethodSection, Recipe
from mimsuite.config.keys.targets import FeatureTargetSection
from mimsuite.config.keys.teachers import TeacherSection, check_attention, check_teacher
from mimsuite.masking import TokenMask, gather_tokens
from mimsuite.masking.redundant import RedundantTokens
from mimsuite.methods.base import Context, Method, Output, Panel, no_gather
from mimsuite.models import Features, ViT
from mimsuite.models.attention import QKV
from mimsuite.models.blocks import init_linear
from mimsuite.models.teachers import build_teacher
from mimsuite.noise import Noise
from mimsuite.targets import FeatureTarget, feature_pictures
from mimsuite.targets.relations import relation_loss


class HybridDistillSection(MethodSection):
    """`method:` Hybrid Distillation has no keys of its own."""

    name: Literal["hybrid-distill"]


class StudentSection(Section):
    """`model:` the student, which sees the whole image."""

    encoder: ViTSection = ViTSection()


class RelationTargetSection(Section):
    """Token relations in a teacher's blocks: queries with keys, and values with values."""

    teacher: TeacherSection
    layers: tuple[Positive, ...]  # blocks of the student
    teacher_layers: tuple[Positive, ...] | None = None  # blocks of the teacher; null: the same
    heads: Annotated[Positive | None, Key.SIZE] = None  # heads on both sides; null: the student's
    weight: Annotated[float, Field(ge=0.0)] = 1.0  # weight of this loss


class HybridTargetSection(Section):
    """`target:` relations from one teacher, features from another."""

    kind: Literal["relations+features"] = "relations+features"
    relations: RelationTargetSection
    features: FeatureTargetSection


class HybridDistillRecipe(Recipe):
    """A recipe for Hybrid Distillation."""

    card: ClassVar[MethodCard] = MethodCard("arXiv:2306.15876", "experimental")

    method: HybridDistillSection
    model: StudentSection
    mask: RedundantMaskSection
    target: HybridTargetSection

    @model_validator(mode="after")
    def _student_and_teachers_fit(self) -> HybridDistillRecipe:
        encoder, relations = self.model.encoder, self.target.relations
        key = "target.relations"
        check_teacher(
            relations.teacher, encoder.grid, encoder.in_channels, f"{key}.teacher", self.augment
        )
        feature_teacher = self.target.features.teacher
        check_teacher(
            feature_teacher,
            encoder.grid,
            encoder.in_channels,
            "target.features.teacher",
            self.augment,
        )
        check_attention(relations.teacher, key, "set another teacher", f"{key}.teacher")
        theirs = relations.teacher_layers or relations.layers
        if len(theirs) != len(relations.layers):
            raise ValueError(
                f"{key}.layers names {len(relations.layers)} blocks and {key}.teacher_layers "
                f"{len(theirs)}: they are paired one to one"
            )
        for name, numbers, depth in (
            ("layers", relations.layers, encoder.depth),
            ("teacher_layers", theirs, relations.teacher.blocks),
        ):
            if max(numbers) > depth:
                raise ValueError(f"{key}.{name} {max(numbers)} exceeds a depth of {depth} blocks")
        if max(self.mask.after, default=0) > encoder.depth:
            raise ValueError(
                f"mask.after {max(self.mask.after)} exceeds model.encoder.depth {encoder.depth}"
            )
        heads = relations.heads or encoder.heads
        for width in (encoder.width, relations.teacher.feature_width):
            if width % heads:
                raise ValueError(f"{key}.heads {heads} does not divide a width of {width}")
        return self


class HybridDistill(Method):
    """A student that learns from two frozen teachers."""

    Recipe = HybridDistillRecipe
    encoder: ViT

    def __init__(self, recipe: HybridDistillRecipe) -> None:
        super().__init__(recipe)
        section, target = recipe.model.encoder, recipe.target
        self.section, self.relations = recipe.mask, target.relations
        self.heads = target.relations.heads or section.heads
        self.pairs = tuple(
            zip(
                target.relations.layers,
                target.relations.teacher_layers or target.relations.layers,
                strict=True,
            )
        )
        self.features = FeatureTarget(target.features)
        self.relation_teacher = build_teacher(
            target.relations.teacher, section.grid, recipe.augment, "target.relations.teacher"
        )
        self.feature_teacher = build_teacher(
            target.features.teacher, section.grid, recipe.augment, "target.features.teacher"
        )
        self.encoder = ViT(section)
        width = self.feature_teacher.width
        self.adapter = nn.Sequential(nn.Linear(section.width, width), nn.LayerNorm(width))
        self.adapter.apply(init_linear)

    def setup(self, batches: Callable[[], Iterable[Batch]] | None) -> list[str]:
        return [*self.relation_teacher.open(), *self.feature_teacher.open()]

    def prepare(
        self, batch: Batch, noise: Noise, gather: Callable[[Tensor], Tensor] = no_gather
    ) -> Context:
        """The teachers' ``relations`` and ``features`` of the unmasked images."""
        numbers = [theirs for _, theirs in self.pairs]
        keys = batch.keys if self.training else None
        relations = self.relation_teacher.features(batch.image, qkv=numbers, keys=keys)
        features = self.feature_teacher.features(batch.image, keys=keys)
        return Context(noise, gather, {"relations": relations.qkv, "features": features.tokens})

    def mask(self, batch: Batch, noise: Noise, ctx: Context) -> dict[str, TokenMask]:
        """Nothing is masked beforehand: the encoder drops tokens between its blocks."""
        return {}

    def forward(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> Output:
        """Relation loss, averaged over layers, plus feature loss of the survivors; ``prediction``
        is the features (B, K, E)."""
        found, dropped = self.student(batch, ctx)
        losses = []
        for own, theirs in self.pairs:
            teacher: QKV = ctx.prepared["relations"][theirs]
            prefix = teacher[0].shape[2] - dropped.present[0].shape[1]
            wanted = _of(dropped.present[own - 1], _behind(prefix, teacher))
            losses.append(relation_loss(_behind(1, found.qkv[own]), wanted, self.heads))
        relations = self.relations.weight * torch.stack(losses).mean()
        survivors = self.survivors(dropped)
        prediction = self.adapter(found.tokens)
        target = self.features(survivors.gather(ctx.prepared["features"], "visible"))
        features = self.features.loss(prediction, target)
        terms = {"relations": relations.detach(), "features": features.detach()}
        return Output(relations + features, terms, prediction, {"image": survivors})

    def student(self, batch: Batch, ctx: Context) -> tuple[Features, RedundantTokens]:
        """The encoder's output for the survivors, and the tokens that each block had."""
        patches = self.encoder.patches(batch.image)  # (B, N, P)
        ids = torch.arange(patches.shape[1], device=patches.device).expand(len(patches), -1)
        dropped = RedundantTokens(self.section, ids)
        layers = [own for own, _ in self.pairs]
        found = self.encoder(patches, ids, noise=ctx.noise, qkv=layers, hook=dropped)
        return found, dropped

    def survivors(self, dropped: RedundantTokens) -> TokenMask:
        """A mask whose visible part is the tokens that reached the end."""
        ids, grid = dropped.present[self.encoder.depth], self.encoder.grid
        tokens = grid[0] * grid[1]
        gone = torch.ones(len(ids), tokens, device=ids.device).scatter(1, ids, 0.0)
        order = gone.argsort(dim=1, stable=True)  # survivors in raster order first
        return TokenMask.from_order(order, ids.shape[1], grid)

    def panels(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> list[Panel]:
        """Original, the tokens that reached the end, the teacher's features and the student's."""
        found, dropped = self.student(batch, ctx)
        survivors = self.survivors(dropped)
        pictures = feature_pictures(
            batch.image,
            survivors,
            self.encoder.section.patch_size,
            self.features(ctx.prepared["features"]),
            (self.adapter(found.tokens), survivors.visible),
            self.feature_teacher.statistics,
        )
        return [Panel(title, images) for title, images in pictures.items()]


def _behind(prefix: int, qkv: QKV) -> QKV:
    """Queries, keys and values (B, h, N, d) without the leading class tokens."""
    q, k, v = (part[:, :, prefix:] for part in qkv)
    return q, k, v


def _of(ids: Tensor, qkv: QKV) -> QKV:
    """Those of the tokens ``ids`` (B, K): (B, h, K, d) each."""
    q, k, v = (gather_tokens(part.transpose(1, 2), ids).transpose(1, 2) for part in qkv)
    return q, k, v
