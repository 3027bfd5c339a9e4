"""V-JEPA: Revisiting Feature Prediction for Learning Visual Representations from Video (Bardes et
al., arXiv:2404.08471) and V-JEPA 2 (Assran et al., arXiv:2506.09985, section 2).

A few sets of blocks are hidden in each clip, one set at a time. The trained encoder sees the tokens
outside the set, and a narrow predictor predicts the latents of the hidden tokens. The targets come
from a momentum copy of the encoder that sees the whole clip. V-JEPA 2 has rotary positions (time,
row, column); V-JEPA adds a fixed table and has one mask token per set.

With one frame, a clip is an image; everything else is the same.

``encoder`` is the momentum copy, which probes, fine-tuning and exports use. ``student`` is the
trained encoder.

Letters: B batch, N tubelets, V visible, T to predict, D width, P = p*p*t*C pixels per tubelet.
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
from mimsuite.methods.base import Context, Output, Panel, no_gather
from mimsuite.methods.ijepa import LatentPrediction
from mimsuite.models import ClipPredictor, ClipViT
from mimsuite.models.blocks import scale_outputs
from mimsuite.noise import Noise
from mimsuite.pictures.features import clip_feature_pictures
from mimsuite.targets import FeatureTarget, channel_deviation
from mimsuite.weights.names import Names


class VJEPASection(MethodSection):
    """`method:` momentum of the target encoder."""

    name: Literal["vjepa"]
    # Momentum of the target encoder: at the first step, and one step after the last; linear in
    # between; `schedule.stretch` stretches it.
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


class VJEPA(LatentPrediction):
    """Predicts the latents of hidden blocks of a clip."""

    Recipe: ClassVar[type[VJEPARecipe]] = VJEPARecipe
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
        self, batch: Batch, noise: Noise, gather: Callable[[Tensor], Tensor] = no_gather
    ) -> Context:
        """The target encoder's latents of the unmasked clips, ``target`` (B, N, D)."""
        tokens = self.encoder(self.encoder.tubelets(self._clips(batch))).tokens
        return Context(noise, gather, {"target": self.target(tokens)})

    def mask(self, batch: Batch, noise: Noise, ctx: Context) -> dict[str, TokenMask]:
        return self.sampler.sample(noise, self.grid)

    def forward(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> Output:
        """Mean loss over the sets; ``prediction`` is (B, T1 + T2 ..., D), set after set."""
        found, losses = [], []
        for number, mask in enumerate(masks.values()):
            found.append(self.predict(batch, mask, ctx, number))
            (wanted,) = mask.gather_targets(ctx.prepared["target"])  # (B, T, D)
            losses.append(self.target.loss(found[-1], wanted))
        prediction = torch.cat(found, dim=1)
        terms = {
            "target_deviation": channel_deviation(ctx.prepared["target"], ctx.gather),
            "prediction_deviation": channel_deviation(prediction, ctx.gather),
        }
        return Output(torch.stack(losses).mean(), terms, prediction, masks)

    def predict(self, batch: Batch, mask: TokenMask, ctx: Context, number: int = 0) -> Tensor:
        """(B, T, D) latents of the tokens that set ``number`` hides, from the visible tubelets."""
        assert mask.targets is not None
        visible = self.student.tubelets(self._clips(batch), mask.visible)
        latent = self.student(visible, mask.visible, noise=ctx.noise).tokens
        found: Tensor = self.predictor(latent, mask.visible, mask.targets[0], self._token(number))
        return found

    def _token(self, number: int) -> int:
        """Index of the mask token of a set."""
        section = self.recipe.model.predictor
        return number % section.mask_tokens if section.mask_token_by == "set" else 0

    def _clips(self, batch: Batch) -> Tensor:
        return batch.views[self.encoder.view]

    # --- for the optimizer ---

    def clip_parts(self) -> tuple[str, ...]:
        return "student.", "predictor."

    def unused_parameters(self) -> set[str]:
        """Mask tokens that no set uses: published optimizers hold them but never move them."""
        used = {self._token(number) for number in range(len(self.recipe.mask.sets))}
        count = self.recipe.model.predictor.mask_tokens
        return {f"predictor.mask_tokens.{n}" for n in range(count) if n not in used}

    def panels(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> list[Panel]:
        """Original, tokens visible in the first set, and true and predicted latents of the rest."""
        mask = next(iter(masks.values()))
        assert mask.targets is not None
        found = self.predict(batch, mask, ctx)
        augment, section = self.recipe.augment, self.encoder.section
        pictures = clip_feature_pictures(
            self._clips(batch),
            mask,
            (section.tubelet, section.patch_size),
            ctx.prepared["target"],
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


# Two wrappers enclose each network of a checkpoint.
_WRAPPED = re.compile(r"^(\w+\.)(?:module\.)?(?:backbone\.)?")
_NAMES = Names(
    [
        ("encoder.", "target_encoder."),
        ("student.", "encoder."),
        ("predictor.mask_tokens.", "predictor.mask_tokens."),
        ("predictor.", "predictor.predictor_"),
    ]
)
