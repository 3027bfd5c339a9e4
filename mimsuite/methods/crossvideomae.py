"""CrossVideoMAE: Self-Supervised Image-Video Representation Learning with Masked Autoencoders
(arXiv:2502.07811).

VideoMAE on two views of a clip, with an image branch (a frozen image autoencoder) that sees one of
its frames. A contrastive loss (NT-Xent) pulls the embeddings of both views and the image together
and pushes other clips away, for the whole clip and for the tokens of that frame.

No code was released, and only the paper's abstract and summaries were available. Details that they
leave open were chosen here; each choice is a key, listed in the documentation (crossvideomae).

Letters: B clips, T frames, V visible tubelets, U visible patches of the frame, D width, E width of
the image branch, P width of the projections.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from mimsuite.batch import Batch
from mimsuite.config.keys.masks import ClipMaskSection, RandomMaskSection
from mimsuite.config.keys.section import Positive
from mimsuite.config.keys.shared import MethodCard, MethodSection
from mimsuite.config.keys.teachers import RunTeacherSection, check_teacher
from mimsuite.config.keys.video import ClipTargetSection
from mimsuite.errors import UserError
from mimsuite.masking import RandomSampler, TokenMask
from mimsuite.methods.base import Context, Output, no_gather
from mimsuite.methods.video_mae import VideoMAE, VideoMAERecipe
from mimsuite.models import Features
from mimsuite.models.blocks import init_linear
from mimsuite.models.teachers import build_teacher
from mimsuite.noise import Noise
from mimsuite.targets.contrast import nt_xent

VIEWS = ("clip", "clip2")
_FEW = 32  # with fewer clips, a contrast has too few negatives

Weight = Annotated[float, Field(ge=0.0)]


class CrossVideoMAESection(MethodSection):
    """`method:` losses added to the reconstruction of the first view."""

    name: Literal["crossvideomae"]
    intra_weight: Weight = 1.0  # weight of the contrast between the two views
    cross_weight: Weight = 1.0  # weight of the contrast between clip and frame
    distill_weight: Weight = 0.0  # weight of the error between both branches' tokens of the frame
    rebuild_second: bool = False  # add the reconstruction of the second view
    temperature: Annotated[float, Field(gt=0.0)] = 0.1  # temperature of the contrasts
    projection: Positive = 256  # width of the contrasted embeddings


class CrossMaskSection(ClipMaskSection):
    """`mask:` independent masks of both views, and of the frame."""

    frame_ratio: Annotated[float, Field(ge=0.0, lt=1.0)]  # share of the frame's patches hidden


class CrossTargetSection(ClipTargetSection):
    """`target:` the pixels of the hidden tubelets, and the frozen image branch."""

    teacher: RunTeacherSection


class CrossVideoMAERecipe(VideoMAERecipe):
    """A recipe for CrossVideoMAE pretraining."""

    card: ClassVar[MethodCard] = MethodCard("arXiv:2502.07811", "experimental")

    method: CrossVideoMAESection  # type: ignore[assignment]
    mask: CrossMaskSection
    target: CrossTargetSection

    @model_validator(mode="after")
    def _branches_fit(self) -> CrossVideoMAERecipe:
        encoder, mask = self.model.encoder, self.mask
        _, rows, columns = encoder.grid
        check_teacher(self.target.teacher, (rows, columns), encoder.in_channels)
        if RandomMaskSection(ratio=mask.frame_ratio).visible(rows * columns) == 0:
            raise ValueError(
                f"mask.frame_ratio {mask.frame_ratio} leaves none of {rows * columns} visible"
            )
        if mask.decoder_ratio:
            raise ValueError("mask.decoder_ratio is for VideoMAE V2: set 0 to decode all hidden")
        if self.method.intra_weight == self.method.cross_weight == 0:
            raise ValueError(
                "method.intra_weight and method.cross_weight are both 0, which is VideoMAE: set "
                "one of them, or take a recipe with method.name=videomae"
            )
        return self

    @model_validator(mode="after")
    def _samples_to_contrast(self) -> CrossVideoMAERecipe:
        if self.augment.second_view is None:
            raise ValueError("augment.second_view is null: set it, two views of a clip are needed")
        if self.augment.repeats > 1:
            raise ValueError(
                f"augment.repeats {self.augment.repeats}: views of one video would be contrasted "
                f"as if they were two; set 1"
            )
        for key in ("global_batch", "micro_batch"):
            if getattr(self.train, key) == 1:
                raise ValueError(f"train.{key} 1: the contrast needs other clips; set 2 or more")
        return self


class CrossVideoMAE(VideoMAE):
    """Masked autoencoder that contrasts a clip with its second view and with one of its frames."""

    Recipe = CrossVideoMAERecipe  # type: ignore[assignment]
    names = None  # there are no published checkpoints

    def __init__(self, recipe: CrossVideoMAERecipe) -> None:
        super().__init__(recipe)
        section, width = recipe.model.encoder, recipe.model.encoder.width
        self.terms, self.frames = recipe.method, section.frames
        self.tubelet, self.frame_grid = section.tubelet, section.grid[1:]
        self.frame_sampler = RandomSampler(RandomMaskSection(ratio=recipe.mask.frame_ratio))
        self.teacher = build_teacher(recipe.target.teacher, self.frame_grid, recipe.augment)
        self.project = projector(width, self.terms.projection)
        if self.terms.cross_weight:
            self.project_frame = projector(self.teacher.width, self.terms.projection)
        if self.terms.distill_weight:
            self.distill = nn.Linear(width, self.teacher.width)
            self.distill.apply(init_linear)

    @property
    def asks_teacher(self) -> bool:
        return self.terms.cross_weight > 0 or self.terms.distill_weight > 0

    def setup(self, batches: Callable[[], Iterable[Batch]] | None) -> list[str]:
        train = self.recipe.train
        lines = self.teacher.open() if self.asks_teacher else []
        many = train.most_at_once
        if many < _FEW:
            each = "train.micro_batch" if train.micro_batch else "train.global_batch"
            what = " on each device" if train.micro_batch else ""
            lines.append(
                f"{each}={many}{what}: a contrast with few other clips teaches little; "
                f"hundreds are usual"
            )
        return lines

    def check(self, batch: Batch) -> None:
        """Raise a ``UserError`` for a micro-batch of one clip."""
        if len(batch) < 2:
            raise UserError(
                "the contrast needs other clips, but this device has one at a time: raise "
                "train.global_batch or train.micro_batch"
            )

    def prepare(
        self, batch: Batch, noise: Noise, gather: Callable[[Tensor], Tensor] = no_gather
    ) -> Context:
        """Index of the frame that the image branch sees, ``frame`` (B,)."""
        frame = (noise.rows("frame", 1)[:, 0] * self.frames).long()
        return Context(noise, gather, {"frame": frame})

    def mask(self, batch: Batch, noise: Noise, ctx: Context) -> dict[str, TokenMask]:
        return {
            "clip": self.sampler.sample(noise, self.grid),
            "clip2": self.sampler.sample(noise.within("clip2"), self.grid),
            "frame": self.frame_sampler.sample(noise.within("frame"), self.frame_grid),
        }

    def forward(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> Output:
        """Sum of reconstruction, contrasts within and across branches, and distillation;
        ``prediction`` is the pixels (B, M, P) of the first view."""
        contexts = (ctx, replace(ctx, noise=ctx.noise.within("clip2")))
        latents = {
            view: self._latent(batch.views[view], masks[view], own)
            for view, own in zip(VIEWS, contexts, strict=True)
        }
        prediction, loss = self._rebuilt("clip", batch, masks, latents)
        terms = {"pixels": loss}
        if self.terms.rebuild_second:
            _, terms["pixels2"] = self._rebuilt("clip2", batch, masks, latents)
            loss = loss + terms["pixels2"]
        seen = self.frame_tokens(batch, masks, ctx) if self.asks_teacher else None
        terms |= self.contrasts(latents, masks, ctx, seen)
        loss = loss + self.terms.intra_weight * terms["intra"]
        if seen is not None and self.terms.cross_weight:
            loss = loss + self.terms.cross_weight * terms["cross"]
        if seen is not None and self.terms.distill_weight:
            terms["distill"] = self.distilled(latents["clip"], masks, ctx, seen)
            loss = loss + self.terms.distill_weight * terms["distill"]
        return Output(loss, {n: term.detach() for n, term in terms.items()}, prediction, masks)

    def contrasts(
        self,
        latents: dict[str, Features],
        masks: dict[str, TokenMask],
        ctx: Context,
        seen: Tensor | None,
    ) -> dict[str, Tensor]:
        """``intra``: view with view; ``cross``: the mean of both views with the frame. Each is a
        mean over two levels: all tokens, and the tokens of the frame's tubelets."""
        # Embeddings (B, P) of the first and second view, of the frame in each, and of the image.
        embedded = [self.embed(latents[view].tokens.mean(dim=1)) for view in VIEWS]
        for view in VIEWS:
            embedded.append(self.embed(self.at_frame(latents[view], masks[view], ctx)))
        if seen is not None and self.terms.cross_weight:
            embedded.append(F.normalize(self.project_frame(seen.mean(dim=1)).float(), dim=1))
        found = ctx.gather(torch.stack(embedded, dim=1)).unbind(dim=1)
        levels, heat = (found[:2], found[2:4]), self.terms.temperature
        terms = {"intra": torch.stack([nt_xent(a, b, heat) for a, b in levels]).mean()}
        if len(found) == 5:
            across = [nt_xent((a + b) / 2, found[4], heat) for a, b in levels]
            terms["cross"] = torch.stack(across).mean()
        return terms

    def embed(self, pooled: Tensor) -> Tensor:
        """(B, D) -> (B, P) of unit length."""
        return F.normalize(self.project(pooled).float(), dim=1)

    def at_frame(self, latent: Features, mask: TokenMask, ctx: Context) -> Tensor:
        """(B, D): mean of the visible tokens whose tubelet holds the frame; mean of all if none
        does."""
        near = (mask.visible // self._places == self._step(ctx)).float()  # (B, V)
        near = torch.where(near.sum(dim=1, keepdim=True) > 0, near, 1.0)
        near = near / near.sum(dim=1, keepdim=True)
        return (latent.tokens * near.unsqueeze(2)).sum(dim=1)

    def frame_tokens(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> Tensor:
        """(B, U, E): the image branch's features of the visible patches of a frame of ``clip``."""
        clips = batch.views["clip"]
        rows = torch.arange(len(clips), device=clips.device)
        frames = clips[rows, :, ctx.prepared["frame"]]  # (B, C, H, W)
        return self.teacher.features(frames, ids=masks["frame"].visible).tokens

    def distilled(
        self, latent: Features, masks: dict[str, TokenMask], ctx: Context, seen: Tensor
    ) -> Tensor:
        """Mean squared error over tokens that both branches see; 0 if there are none."""
        places = self._step(ctx) * self._places + masks["frame"].visible  # (B, U), in the clip
        same = masks["clip"].visible.unsqueeze(2) == places.unsqueeze(1)  # (B, V, U)
        with torch.autocast(seen.device.type, enabled=False):
            wanted = same.to(seen.dtype) @ seen  # (B, V, E)
        error = (self.distill(latent.tokens).float() - wanted).square().mean(dim=2)
        both = same.any(dim=2).float()
        return (error * both).sum() / both.sum().clamp_min(1.0)

    @property
    def _places(self) -> int:
        """Tokens of one step in time."""
        rows, columns = self.frame_grid
        return rows * columns

    def _step(self, ctx: Context) -> Tensor:
        """(B, 1): index in time of the tubelets that hold the frame."""
        frame: Tensor = ctx.prepared["frame"]
        return (frame // self.tubelet).unsqueeze(1)

    def _rebuilt(
        self,
        view: str,
        batch: Batch,
        masks: dict[str, TokenMask],
        latents: dict[str, Features],
    ) -> tuple[Tensor, Tensor]:
        """Prediction (B, M, P) of a view's hidden tubelets, and its error."""
        mask = masks[view]
        prediction = self.decoder(latents[view], mask)
        hidden = self.encoder.tubelets(batch.views[view], mask.masked)
        loss, _ = self.target.loss(prediction, self.target(hidden, self.channels), None)
        return prediction, loss


def projector(width: int, out: int) -> nn.Module:
    """Two linear layers with a layer norm between them; a batch norm would depend on the batch
    size."""
    layers = nn.Sequential(
        nn.Linear(width, width), nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, out)
    )
    layers.apply(init_linear)
    return layers
