"""V-JEPA: Revisiting Feature Prediction for Learning Visual Representations from Video (Bardes et
al., arXiv:2404.08471) and V-JEPA 2 (Assran et al., arXiv:2506.09985, section 2).

Of each clip a few sets of blocks are hidden in turn. The encoder that is trained sees what a set
leaves over, and a narrow predictor tells from that what a momentum copy of the encoder makes of the
whole clip in the hidden places. V-JEPA 2 turns queries and keys with time, row and column; V-JEPA
adds a fixed table, and has a mask token for each set.

With one frame a clip is an image, and everything else the same.

``encoder`` is the momentum copy, which probes, fine-tuning and exports take. ``student`` is the one
that is trained.

Letters: B batch, N tubelets, V visible, T to predict, D width, p*p*t*C = P pixels of a tubelet.
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
from mimsuite.config.keys.masks import ClipBlocksMaskSection
from mimsuite.config.keys.section import Fraction
from mimsuite.config.keys.shared import MethodCard, MethodSection, Recipe
from mimsuite.config.keys.targets import LatentTargetSection
from mimsuite.config.keys.video import (
    ClipAugmentSection,
    ClipDataSection,
    ClipPredictiveSection,
)
from mimsuite.masking import ClipBlockSampler, TokenMask
from mimsuite.methods.base import Context, Method, Output, Panel, Progress, alone
from mimsuite.models import ClipPredictor, ClipViT
from mimsuite.models.blocks import scale_outputs
from mimsuite.models.momentum import follow_module, rising
from mimsuite.noise import Noise
from mimsuite.pictures.features import clip_feature_pictures
from mimsuite.targets import FeatureTarget, channel_deviation
from mimsuite.weights.names import Names


class VJEPASection(MethodSection):
    """`method:` how the target encoder follows."""

    name: Literal["vjepa"]
    # Share of the target encoder that is kept in a step: at the first step, and one step behind the
    # last, a straight line between; `schedule.stretch` stretches it.
    momentum: tuple[Fraction, Fraction]


class VJEPARecipe(Recipe):
    """A recipe for V-JEPA or V-JEPA 2 pretraining, of clips or of images."""

    card: ClassVar[MethodCard] = MethodCard("arXiv:2506.09985", "verified", ("step", "trajectory"))

    method: VJEPASection
    model: ClipPredictiveSection
    mask: ClipBlocksMaskSection
    target: LatentTargetSection
    data: ClipDataSection = ClipDataSection()
    augment: ClipAugmentSection = ClipAugmentSection()

    @model_validator(mode="after")
    def _blocks_fit(self) -> VJEPARecipe:
        self.mask.check_grid(self.model.encoder.grid)
        return self

    @model_validator(mode="after")
    def _samples_are_read(self) -> VJEPARecipe:
        still = self.model.encoder.still
        if still != (self.recipe.modality == "image"):
            wanted = "recipe.modality image" if still else "recipe.modality video"
            raise ValueError(
                f"model.encoder.frames {self.model.encoder.frames} with tubelet "
                f"{self.model.encoder.tubelet} needs {wanted}: images have one of each"
            )
        return self


class VJEPA(Method):
    """Predicts latents of hidden blocks of a clip."""

    Recipe: ClassVar[type[VJEPARecipe]] = VJEPARecipe
    collapse_terms = ("target_deviation", "prediction_deviation", "rankme")
    encoder: ClipViT
    student: ClipViT

    def __init__(self, recipe: VJEPARecipe) -> None:
        super().__init__(recipe)
        section = recipe.model.encoder
        self.grid = section.grid
        self.momentum, self.stretch = recipe.method.momentum, recipe.schedule.stretch
        self.sampler = ClipBlockSampler(recipe.mask)
        self.target = FeatureTarget(recipe.target)
        self.student = ClipViT(section)
        self.predictor = ClipPredictor(recipe.model.predictor, section)
        if recipe.model.scaled_start:
            scale_outputs(self.student.blocks)
            scale_outputs(self.predictor.blocks)
        for name in self.unused_parameters():
            self.get_parameter(name).requires_grad_(False)
        self.encoder = copy.deepcopy(self.student)
        self.keep_frozen(self.encoder)

    def prepare(
        self, batch: Batch, noise: Noise, gather: Callable[[Tensor], Tensor] = alone
    ) -> Context:
        """What the target encoder makes of the intact clips, ``target`` (B, N, D)."""
        tokens = self.encoder(self.encoder.tubelets(self._clips(batch))).tokens
        return Context(noise, gather, {"target": self.target(tokens)})

    def mask(self, batch: Batch, noise: Noise, ctx: Context) -> dict[str, TokenMask]:
        return self.sampler.sample(noise, self.grid)

    def forward(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> Output:
        """Mean over the sets of their losses; ``prediction`` is (B, T1 + T2 ..., D), set after
        set."""
        found, losses = [], []
        for number, mask in enumerate(masks.values()):
            found.append(self.predict(batch, mask, ctx, number))
            (wanted,) = mask.gather_targets(ctx.made["target"])  # (B, T, D)
            losses.append(self.target.loss(found[-1], wanted))
        prediction = torch.cat(found, dim=1)
        terms = {
            "target_deviation": channel_deviation(ctx.made["target"], ctx.gather),
            "prediction_deviation": channel_deviation(prediction, ctx.gather),
        }
        return Output(torch.stack(losses).mean(), terms, prediction, masks)

    def predict(self, batch: Batch, mask: TokenMask, ctx: Context, number: int = 0) -> Tensor:
        """(B, T, D) latents of what the set of this number hides, from the visible tubelets."""
        assert mask.targets is not None
        visible = self.student.tubelets(self._clips(batch), mask.visible)
        latent = self.student(visible, mask.visible, noise=ctx.noise).tokens
        found: Tensor = self.predictor(latent, mask.visible, mask.targets[0], self._token(number))
        return found

    def _token(self, number: int) -> int:
        """Which mask token a set takes."""
        section = self.recipe.model.predictor
        return number % section.mask_tokens if section.mask_token_by == "set" else 0

    def _clips(self, batch: Batch) -> Tensor:
        return batch.views[self.encoder.view]

    def scheduled(self, progress: Progress) -> dict[str, float]:
        first, last = self.momentum
        return {"momentum": rising(progress.step, first, last, progress.total * self.stretch)}

    def after_step(self, progress: Progress) -> None:
        momentum = self.scheduled(progress)["momentum"]
        follow_module(self.encoder, self.student, momentum, progress.skipped)

    # --- what the optimizer asks ---

    def layer_id(self, name: str) -> int:
        prefix, _, rest = name.partition(".")
        return self.student.layer_id(rest) if prefix == "student" else super().layer_id(name)

    def clip_parts(self) -> tuple[str, ...]:
        return "student.", "predictor."

    def unused_parameters(self) -> set[str]:
        """Mask tokens of no set: published optimizers hold them, and never move them."""
        used = {self._token(number) for number in range(len(self.recipe.mask.sets))}
        count = self.recipe.model.predictor.mask_tokens
        return {f"predictor.mask_tokens.{n}" for n in range(count) if n not in used}

    def adopts(self) -> dict[str, str]:
        """Of weights with one encoder, both begin as that."""
        return {f"student.{name}": f"encoder.{name}" for name in self.student.state_dict()}

    def panels(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> list[Panel]:
        """Original, what the first set shows, and latents of what it hides, true and predicted."""
        mask = next(iter(masks.values()))
        assert mask.targets is not None
        found = self.predict(batch, mask, ctx)
        augment, section = self.recipe.augment, self.encoder.section
        pictures = clip_feature_pictures(
            self._clips(batch),
            mask,
            (section.tubelet, section.patch_size),
            ctx.made["target"],
            (found, mask.targets[0]),
            (augment.mean, augment.std),
        )
        return [Panel(name, tensor) for name, tensor in pictures.items()]

    # --- published checkpoints (facebookresearch/vjepa2, facebookresearch/jepa) ---

    def export_reference(self) -> dict[str, Tensor]:
        found = {}
        for name, tensor in self.state_dict().items():
            network, _, rest = _NAMES.published(name).partition(".")
            found[f"{network}.module.backbone.{rest}"] = tensor
        return found

    @classmethod
    def import_reference(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {_NAMES.ours(_WRAPPED.sub(r"\1", k)): tensor for k, tensor in state.items()}


# Each network of a checkpoint is wrapped twice.
_WRAPPED = re.compile(r"^(\w+\.)(?:module\.)?(?:backbone\.)?")
_NAMES = Names(
    [
        ("encoder.", "target_encoder."),
        ("student.", "encoder."),
        ("predictor.mask_tokens.", "predictor.mask_tokens."),
        ("predictor.", "predictor.predictor_"),
    ]
)
