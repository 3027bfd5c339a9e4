"""I-JEPA: Self-Supervised Learning from Images with a Joint-Embedding Predictive Architecture
(Assran et al., arXiv:2301.08243, section 3).

For each image, latents of four target rectangles are predicted. The targets come from a momentum
copy of the encoder that sees the whole image. The trained encoder sees one large rectangle without
the targets, and a narrow predictor predicts each target from its latents, in a separate sequence.

``encoder`` is the momentum copy, the paper's target encoder; probes, fine-tuning and exports use
it. ``student`` is the trained encoder.

Letters: B batch, N patches, V visible, K targets, T patches per target, C contexts, D width.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from pydantic import model_validator
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.config.keys.encoders import DecoderSection, ViTSection
from mimsuite.config.keys.masks import MultiBlockMaskSection
from mimsuite.config.keys.section import Fraction, Section
from mimsuite.config.keys.shared import MethodCard, MethodSection, Recipe
from mimsuite.config.keys.targets import LatentTargetSection
from mimsuite.masking import MultiBlockSampler, TokenMask
from mimsuite.methods.base import Context, Method, Output, Panel, Progress, no_gather
from mimsuite.models import Encoder, ImageEncoder, Predictor, build_encoder
from mimsuite.models.blocks import init_normal
from mimsuite.models.momentum import follow_module, rising
from mimsuite.noise import Noise
from mimsuite.targets import FeatureTarget, channel_deviation, feature_pictures
from mimsuite.tokens import unpatchify
from mimsuite.weights.names import Names


class IJEPASection(MethodSection):
    """`method:` momentum of the target encoder."""

    name: Literal["ijepa"]
    # Momentum of the target encoder: at the first step, and one step after the last; linear in
    # between; `schedule.stretch` stretches it.
    momentum: tuple[Fraction, Fraction]


class PredictiveModelSection(Section):
    """`model:` an encoder, its momentum copy, and a predictor of latents."""

    encoder: ViTSection = ViTSection()
    predictor: DecoderSection = DecoderSection()


class IJEPARecipe(Recipe):
    """A recipe for I-JEPA pretraining."""

    card: ClassVar[MethodCard] = MethodCard("arXiv:2301.08243", "verified", ("step", "trajectory"))

    method: IJEPASection
    model: PredictiveModelSection
    mask: MultiBlockMaskSection
    target: LatentTargetSection

    @model_validator(mode="after")
    def _blocks_fit(self) -> IJEPARecipe:
        self.mask.check_grid(self.model.encoder.grid)
        return self


class LatentPrediction(Method):
    """Base of methods that train ``student`` to predict the latents of its momentum copy.

    A subclass sets ``momentum``, its first and last value, ``stretch`` of its schedule, and
    ``student``; ``encoder`` is the copy.
    """

    collapse_terms = ("target_deviation", "prediction_deviation", "rankme")
    student: Encoder
    momentum: tuple[float, float]
    stretch: float

    def scheduled(self, progress: Progress) -> dict[str, float]:
        first, last = self.momentum
        return {"momentum": rising(progress.step, first, last, progress.total * self.stretch)}

    def after_step(self, progress: Progress) -> None:
        momentum = self.scheduled(progress)["momentum"]
        follow_module(self.encoder, self.student, momentum, progress.skipped)

    def layer_id(self, name: str) -> int:
        prefix, _, rest = name.partition(".")
        return self.student.layer_id(rest) if prefix == "student" else super().layer_id(name)

    def init_aliases(self) -> dict[str, str]:
        """Both encoders are initialised from the encoder of weights with only one."""
        return {f"student.{name}": f"encoder.{name}" for name in self.student.state_dict()}


class IJEPA(LatentPrediction):
    """Predicts the latents of hidden rectangles."""

    Recipe: ClassVar[type[IJEPARecipe]] = IJEPARecipe
    names = Names(
        [
            ("encoder.", "target_encoder."),
            ("student.", "encoder."),
            ("predictor.mask_token", "predictor.mask_token"),
            ("predictor.pred.", "predictor.predictor_proj."),
            ("predictor.", "predictor.predictor_"),
        ]
    )
    encoder: ImageEncoder
    student: ImageEncoder

    def __init__(self, recipe: IJEPARecipe) -> None:
        super().__init__(recipe)
        section = recipe.model.encoder
        self.grid, self.patch_size = section.grid, section.patch_size
        self.momentum, self.stretch = recipe.method.momentum, recipe.schedule.stretch
        self.sampler = MultiBlockSampler(recipe.mask)
        self.target = FeatureTarget(recipe.target)
        student = build_encoder(section)
        assert isinstance(student, ImageEncoder)
        self.student = student.apply(init_normal)
        self.predictor = Predictor(
            recipe.model.predictor,
            in_width=section.width,
            out_width=section.width,
            grid=section.grid,
            eps=section.norm_eps,
            class_tokens=student.class_tokens,
            init=init_normal,
        )
        self.encoder = copy.deepcopy(self.student)
        self.keep_frozen(self.encoder)

    def prepare(
        self, batch: Batch, noise: Noise, gather: Callable[[Tensor], Tensor] = no_gather
    ) -> Context:
        """The target encoder's latents of the unmasked images, ``target`` (B, N, D)."""
        tokens = self.encoder(self.encoder.patches(batch.image)).tokens
        return Context(noise, gather, {"target": self.target(tokens)})

    def mask(self, batch: Batch, noise: Noise, ctx: Context) -> dict[str, TokenMask]:
        return self.sampler.sample(noise, self.grid)

    def forward(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> Output:
        """Loss over all targets; ``prediction`` is (K C B, T, D), targets outermost."""
        contexts = list(masks.values())  # all have the same targets
        wanted = contexts[0].gather_targets(ctx.prepared["target"])  # (K, B, T, D)
        found = torch.stack([self.predict(batch, mask, ctx) for mask in contexts], dim=1)
        loss = self.target.loss(found, wanted.unsqueeze(1).expand_as(found))  # (K, C, B, T, D)
        terms = {
            "target_deviation": channel_deviation(ctx.prepared["target"], ctx.gather),
            "prediction_deviation": channel_deviation(found, ctx.gather),
        }
        return Output(loss, terms, found.flatten(0, 2), masks)

    def predict(self, batch: Batch, mask: TokenMask, ctx: Context) -> Tensor:
        """(K, B, T, D) latents of each target, from the visible patches."""
        assert mask.targets is not None
        visible = self.student.patches(batch.image, mask.visible)
        latent = self.student(visible, mask.visible, noise=ctx.noise)
        tokens = torch.cat([latent.cls, latent.tokens], dim=1)
        found: Tensor = self.predictor(tokens, mask.visible, mask.targets)
        return found

    def panels(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> list[Panel]:
        """Original, context, targets on the image, and the targets' true and predicted latents."""
        mask = next(iter(masks.values()))
        assert mask.targets is not None
        ids = mask.targets.transpose(0, 1).flatten(1)  # (B, K T)
        found = self.predict(batch, mask, ctx).transpose(0, 1).flatten(1, 2)  # (B, K T, D)
        augment = self.recipe.augment
        statistics = augment.mean, augment.std
        pictures = feature_pictures(
            batch.image, mask, self.patch_size, ctx.prepared["target"], (found, ids), statistics
        )
        others = torch.ones(len(ids), mask.tokens, dtype=torch.bool, device=ids.device)
        others = others.scatter(1, ids, False).unsqueeze(-1)  # (B, N, 1)
        patches = self.encoder.patches(batch.image).float().masked_fill(others, 0.0)
        original, context, *features = [Panel(name, tensor) for name, tensor in pictures.items()]
        targets = Panel("targets", unpatchify(patches, self.patch_size, self.grid))
        return [original, Panel("context", context.images), targets, *features]

    # --- published checkpoints (facebookresearch/ijepa) ---

    @classmethod
    def import_reference(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return super().import_reference({_WRAPPED.sub(r"\1", k): t for k, t in state.items()})


# DistributedDataParallel wraps each network of a checkpoint.
_WRAPPED = re.compile(r"^(\w+\.)module\.")
