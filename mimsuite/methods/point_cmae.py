"""Point-CMAE: Bringing Masked Autoencoders Explicit Contrastive Properties for Point Cloud
Self-supervised Learning (Ren et al., arXiv:2407.05862).

Two independent masks of the same cloud make two views. One encoder reads both; each view has its
own class token and its own decoder. Both reconstruct as in Point-MAE, and a consistency loss makes
decoded tokens that are masked in both views similar. Paper and released code compare different
tokens: `method.consistency`.

Letters: B clouds, G groups, V visible, M masked, K points per group, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Annotated, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from mimsuite.batch import Batch
from mimsuite.config.keys.points import PointPretrainRecipe
from mimsuite.config.keys.shared import MethodCard, MethodSection
from mimsuite.masking import TokenMask, build_sampler, gather_tokens
from mimsuite.methods.base import Context, Method, Output, Panel, no_gather
from mimsuite.methods.point_mae import cloud_panels
from mimsuite.models import ClassToken, Features, PointDecoder, PointTransformer
from mimsuite.models.point_decoder import visible_first
from mimsuite.noise import Noise
from mimsuite.pictures.clouds import draw_clouds
from mimsuite.targets.chamfer import chamfer
from mimsuite.targets.consistency import consistency
from mimsuite.weights.names import Names

VIEWS = ("view1", "view2")
_PROJECTED = 256


class PointCMAESection(MethodSection):
    """`method:` keys of Point-CMAE."""

    name: Literal["point-cmae"]
    # Compare a co-masked token with all tokens of the other view, as in the released code, or with
    # the same token there, as in the paper
    consistency: Literal["all_pairs", "same_token"] = "all_pairs"
    reconstruction_weight: Annotated[float, Field(ge=0.0)] = 1000.0  # weight of Chamfer distances
    consistency_weight: Annotated[float, Field(ge=0.0)] = 1.0


class PointCMAERecipe(PointPretrainRecipe):
    """A recipe for Point-CMAE pretraining."""

    card: ClassVar[MethodCard] = MethodCard("arXiv:2407.05862", "verified", ("step", "trajectory"))

    method: PointCMAESection


class PointCMAE(Method):
    """Two masked views of each cloud, one encoder, two decoders."""

    Recipe = PointCMAERecipe
    encoder: PointTransformer

    # Published checkpoints: Amazingren/Point-CMAE.
    names = Names(
        [
            ("encoder.tokenizer.", "MAE_encoder.encoder."),
            ("encoder.blocks.{}.", "MAE_encoder.blocks.blocks.{}."),
            ("views.0.cls_token", "MAE_encoder.cls_token1"),
            ("views.1.cls_token", "MAE_encoder.cls_token2"),
            ("views.0.cls_pos", "MAE_encoder.cls_pos1"),
            ("views.1.cls_pos", "MAE_encoder.cls_pos2"),
            ("proj_cls.", "MAE_encoder.proj_cls."),
            ("encoder.", "MAE_encoder."),
            ("decoder.0.mask_token", "mask_token1"),
            ("decoder.1.mask_token", "mask_token2"),
            ("decoder.0.pos_embed.", "decoder_pos_embed1."),
            ("decoder.1.pos_embed.", "decoder_pos_embed2."),
            ("decoder.0.pred.", "increase_dim.0."),
            ("decoder.1.pred.", "increase_dim_.0."),
            ("decoder.0.", "MAE_decoder."),
            ("decoder.1.", "MAE_decoder_."),
        ]
    )

    def __init__(self, recipe: PointCMAERecipe) -> None:
        super().__init__(recipe)
        section = recipe.model.encoder
        self.grid, self.weights = (section.groups,), recipe.method
        self.norm, self.loss_scope = recipe.target.norm, recipe.train.loss_scope
        self.sampler = build_sampler(recipe.mask)
        self.encoder = PointTransformer(section)
        self.views = nn.ModuleList(ClassToken(section.width) for _ in VIEWS)
        self.decoder = nn.ModuleList(PointDecoder(recipe.model.decoder, section) for _ in VIEWS)
        self.proj_cls = nn.Sequential(  # not used by any loss, as in the released code
            nn.Linear(section.width, _PROJECTED),
            nn.BatchNorm1d(_PROJECTED),
            nn.ReLU(),
            nn.Linear(_PROJECTED, _PROJECTED),
        ).requires_grad_(False)

    def prepare(
        self, batch: Batch, noise: Noise, gather: Callable[[Tensor], Tensor] = no_gather
    ) -> Context:
        return Context(noise, gather, {"groups": self.encoder.group(batch.views["points"])})

    def mask(self, batch: Batch, noise: Noise, ctx: Context) -> dict[str, TokenMask]:
        center = ctx.prepared["groups"].center
        return {view: self.sampler.sample(noise.within(view), self.grid, center) for view in VIEWS}

    def forward(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> Output:
        """Chamfer distances of both views plus consistency; ``prediction`` is that of view 1."""
        groups = ctx.prepared["groups"]
        decoded, predictions, distances = [], [], []
        for view, tokens in zip(VIEWS, self._decode(masks, ctx, everywhere=True), strict=True):
            mask = masks[view]
            decoder = cast(PointDecoder, self.decoder[VIEWS.index(view)])
            predictions.append(decoder.predict(tokens[:, -mask.masked.shape[1] :]))
            target = mask.gather(groups.points, "masked")
            distances.append(
                chamfer(predictions[-1].flatten(0, 1), target.flatten(0, 1), self.norm)
            )
            decoded.append(gather_tokens(tokens, mask.restore()))  # (B, G, D) in group order
        agreement = self._consistency(decoded, masks, ctx)
        reconstruction = distances[0] + distances[1]
        loss = (
            self.weights.reconstruction_weight * reconstruction
            + self.weights.consistency_weight * agreement
        )
        terms = {"chamfer": reconstruction.detach(), "consistency": agreement.detach()}
        return Output(loss, terms, predictions[0], masks)

    def encode(self, batch: Batch, layers: Collection[int] = ()) -> Features:
        """Features of the unmasked cloud, with the class token of view 1."""
        return self.encoder.encode(batch, layers=layers, cls=cast(ClassToken, self.views[0]))

    def panels(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> list[Panel]:
        """Original, and per view the visible groups, and these with the reconstructed groups."""
        points, groups = batch.views["points"], ctx.prepared["groups"]
        panels = [Panel("original", draw_clouds(points, points))]
        for number, tokens in enumerate(self._decode(masks, ctx, everywhere=False)):
            mask, decoder = masks[VIEWS[number]], cast(PointDecoder, self.decoder[number])
            rebuilt = decoder.predict(tokens)
            panels += cloud_panels(points, groups, mask, rebuilt, f" (view {number + 1})")
        return panels

    def no_weight_decay(self) -> set[str]:
        return {name for name, _ in self.named_parameters() if name.endswith("_token")}

    def unused_parameters(self) -> set[str]:
        return {name for name, _ in self.named_parameters() if name.startswith("proj_cls.")}

    def _decode(
        self, masks: dict[str, TokenMask], ctx: Context, *, everywhere: bool
    ) -> list[Tensor]:
        """Per view the last block's tokens: visible then masked groups, or masked groups only."""
        groups = ctx.prepared["groups"]
        tokens = self.encoder.tokenizer(groups.points)  # (B, G, D), for both views
        decoded = []
        for number, view in enumerate(VIEWS):
            mask, noise = masks[view], ctx.noise.within(view)
            visible, center = (mask.gather(x, "visible") for x in (tokens, groups.center))
            latent = self.encoder(visible, center, self.views[number], noise=noise)
            if self.training:
                with torch.no_grad():  # updates buffers that published checkpoints contain
                    self.proj_cls(latent.cls.detach()[:, 0])
            decoded.append(
                self.decoder[number](
                    latent.tokens,
                    visible_first(groups.center, mask),
                    noise=noise.within("decoder"),
                    everywhere=everywhere,
                )
            )
        return decoded

    def _consistency(
        self, decoded: list[Tensor], masks: dict[str, TokenMask], ctx: Context
    ) -> Tensor:
        """A ratio of sums over all clouds; 0 if no token is masked in both views.

        With ``train.loss_scope: global`` the denominator is summed over all ranks.
        """
        comasked = masks["view1"].dense() & masks["view2"].dense()
        apart, count = consistency(decoded[0], decoded[1], comasked, self.weights.consistency)
        if self.loss_scope == "global":
            counts = ctx.gather(count.reshape(1))
            count = counts.mean()  # the trainer averages losses over ranks
        return apart / count.clamp_min(torch.finfo(count.dtype).tiny)
