"""MR-MAE: Mimic before Reconstruct (Gao et al., arXiv:2303.05475, IJCV 2023).

MAE with a second task: the encoder's outputs for visible tokens mimic the features that a frozen
teacher (DINO, CLIP) has at the same positions of the whole image, while the decoder reconstructs
the pixels of the masked patches. So no token has two targets. On an encoder with convolution stages
this is MR-MCMAE, also called ConvMAE-v2.

No code was released. Details that the paper leaves open were chosen here; each choice is a key,
listed in the documentation (mr-mae).

Letters: B batch, V visible, M masked, N patches, D width, E width of the teacher's features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import model_validator
from torch import Tensor, nn

from mimsuite.batch import Batch
from mimsuite.config.keys.encoders import (
    AnyDecoderSection,
    DecoderSection,
    EncoderSection,
    ViTSection,
)
from mimsuite.config.keys.masks import GuidedDecodedMaskSection
from mimsuite.config.keys.section import Positive, Section
from mimsuite.config.keys.shared import MethodCard, MethodSection
from mimsuite.config.keys.targets import FeatureLossSection, PixelTargetSection
from mimsuite.config.keys.teachers import TeacherSection, check_attention, check_teacher
from mimsuite.masking import TokenMask
from mimsuite.methods.base import Context, Output, Panel, no_gather
from mimsuite.methods.mae import MAE, MAERecipe
from mimsuite.models import Features
from mimsuite.models.blocks import init_linear
from mimsuite.models.teachers import build_teacher
from mimsuite.noise import Noise
from mimsuite.targets import FeatureTarget, feature_pictures


class MRMAESection(MethodSection):
    """`method:` MR-MAE has no keys of its own."""

    name: Literal["mr-mae"]


class MimicModelSection(Section):
    """`model:` an encoder, a decoder of the masked tokens, and the blocks to fuse."""

    encoder: EncoderSection = ViTSection()
    decoder: AnyDecoderSection = DecoderSection()
    fuse_layers: tuple[Positive, ...] = ()  # blocks added to the output, after a norm and linear


class MimicTargetSection(PixelTargetSection):
    """`target:` pixels of the masked patches, and a teacher's features of the visible patches."""

    kind: Literal["pixels+features"] = "pixels+features"  # type: ignore[assignment]
    teacher: TeacherSection
    mimic: FeatureLossSection


class MRMAERecipe(MAERecipe):
    """A recipe for MR-MAE pretraining."""

    card: ClassVar[MethodCard] = MethodCard("arXiv:2303.05475", "experimental")

    method: MRMAESection  # type: ignore[assignment]
    model: MimicModelSection  # type: ignore[assignment]
    mask: GuidedDecodedMaskSection  # type: ignore[assignment]
    target: MimicTargetSection

    @model_validator(mode="after")
    def _student_and_teacher_fit(self) -> MRMAERecipe:
        encoder, teacher = self.model.encoder, self.target.teacher
        check_teacher(teacher, encoder.grid, encoder.in_channels, augment=self.augment)
        if self.mask.kind == "attentive":
            check_attention(teacher, "mask.kind=attentive", "set mask.kind=random")
        for number in self.model.fuse_layers:
            if number > encoder.depth:
                raise ValueError(
                    f"model.fuse_layers {number} exceeds model.encoder.depth {encoder.depth}"
                )
        return self


class MRMAE(MAE):
    """Masked autoencoder whose visible tokens mimic a teacher."""

    Recipe = MRMAERecipe
    names = None  # there are no published checkpoints

    def __init__(self, recipe: MRMAERecipe) -> None:
        super().__init__(recipe)
        section, teacher = recipe.model.encoder, recipe.target.teacher
        self.mimic = FeatureTarget(recipe.target.mimic)
        self.teacher = build_teacher(teacher, section.grid, recipe.augment)
        self.head = nn.Linear(section.width, self.teacher.width)
        self.fusion = nn.ModuleDict(
            {
                str(number): nn.Sequential(
                    nn.LayerNorm(section.width, eps=section.norm_eps),
                    nn.Linear(section.width, section.width),
                )
                for number in recipe.model.fuse_layers
            }
        )
        self.head.apply(init_linear)
        self.fusion.apply(init_linear)

    def setup(self, batches: Callable[[], Iterable[Batch]] | None) -> list[str]:
        return self.teacher.open()

    def prepare(
        self, batch: Batch, noise: Noise, gather: Callable[[Tensor], Tensor] = no_gather
    ) -> Context:
        """The teacher's features of the unmasked images, ``teacher``."""
        keys = batch.keys if self.training else None
        found = self.teacher.features(
            batch.image, cls_attention=self.sampler.needs_guide, keys=keys
        )
        return Context(noise, gather, {"teacher": found})

    def mask(self, batch: Batch, noise: Noise, ctx: Context) -> dict[str, TokenMask]:
        guide = ctx.prepared["teacher"].cls_attention
        if guide is not None:
            guide = guide.mean(dim=1)  # over heads, (B, N)
        return {"image": self.sampler.sample(noise, self.grid, guide)}

    def latent(self, batch: Batch, mask: TokenMask, ctx: Context) -> Features:
        """The encoder's output for the visible patches, with the fused blocks added."""
        visible = self.encoder.patches(batch.image, mask.visible)
        layers = {*map(int, self.fusion), *self.decoder.layers}
        found: Features = self.encoder(visible, mask.visible, noise=ctx.noise, layers=layers)
        for number, fuse in self.fusion.items():
            block = fuse(found.layers[int(number)])  # (B, C + V, D)
            split = block.shape[1] - mask.visible.shape[1]
            found = replace(
                found, cls=found.cls + block[:, :split], tokens=found.tokens + block[:, split:]
            )
        return found

    def forward(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> Output:
        """Pixel loss of the decoded patches plus mimic loss of the visible patches; ``prediction``
        is the pixels (B, Nd, P)."""
        mask = masks["image"]
        latent = self.latent(batch, mask, ctx)
        prediction = self.decoder(latent, mask)  # (B, Nd, P)
        patches = self.encoder.patches(batch.image, mask.ids("decoded"))
        pixels = self.target.loss(prediction, self.target(patches))
        wanted = self.mimic(mask.gather(ctx.prepared["teacher"].tokens, "visible"))
        mimic = self.mimic.loss(self.head(latent.tokens), wanted)  # (B, V, E)
        terms = {"pixels": pixels.detach(), "mimic": mimic.detach()}
        return Output(pixels + mimic, terms, prediction, masks)

    def panels(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> list[Panel]:
        """MAE's pictures, then the teacher's and the student's features as colours."""
        mask = masks["image"]
        prediction = self.head(self.latent(batch, mask, ctx).tokens)
        pictures = feature_pictures(
            batch.image,
            mask,
            self.patch_size,
            self.mimic(ctx.prepared["teacher"].tokens),
            (prediction, mask.visible),
            self.teacher.statistics,
        )
        features = [Panel(title, images) for title, images in pictures.items() if "PCA" in title]
        return super().panels(batch, masks, ctx) + features
