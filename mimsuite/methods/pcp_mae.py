"""PCP-MAE: Learning to Predict Centers for Point Masked Autoencoders (Zhang et al., NeurIPS 2024,
arXiv:2408.08753).

Point-MAE's decoder can reconstruct much from the true centres of the masked groups alone. Here it
does not get them. The encoder runs two streams with shared weights: visible groups, as in
Point-MAE, and masked groups, whose points are given relative to their unknown centres. The second
stream predicts the sin-cos codes of the centres, and the decoder gets these predictions.

Letters: B clouds, G groups, V visible, M masked, K points per group, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from mimsuite.batch import Batch
from mimsuite.config.keys.points import (
    CenterHeadSection,
    ChamferTargetSection,
    PointAutoencoderSection,
    PointPretrainRecipe,
)
from mimsuite.config.keys.section import require_divides
from mimsuite.config.keys.shared import MethodCard, MethodSection
from mimsuite.masking import TokenMask, build_sampler
from mimsuite.methods.base import Context, Method, Output, Panel, no_gather
from mimsuite.methods.point_mae import cloud_panels
from mimsuite.models import PointDecoder, PointTransformer
from mimsuite.models.center_head import CenterHead
from mimsuite.noise import Noise
from mimsuite.pictures.clouds import draw_clouds
from mimsuite.targets.chamfer import chamfer
from mimsuite.tokens import Groups
from mimsuite.tokens.positions import points_of_sincos, sincos_points
from mimsuite.weights.names import Names


class PCPMAESection(MethodSection):
    """`method:` keys of PCP-MAE."""

    name: Literal["pcp-mae"]
    # true, as published: the reconstruction loss does not train the centre head; false: it does
    detach: bool = True


class PCPModelSection(PointAutoencoderSection):
    """`model:` Point-MAE's parts, and a head for the centres of masked groups."""

    centers: CenterHeadSection = CenterHeadSection()

    @model_validator(mode="after")
    def _centers_fit(self) -> PCPModelSection:
        if self.encoder.positions != "sincos":
            raise ValueError("centres are predicted as codes: set encoder.positions=sincos")
        if self.centers.depth:
            heads, width = self.centers.heads, self.encoder.width
            require_divides("centers.heads", heads, "encoder.width", width)
        return self


class PCPTargetSection(ChamferTargetSection):
    """`target:` the points of each masked group, and the sin-cos code of its centre."""

    center_loss: Literal["l2", "l1", "smooth-l1", "cosine"] = "l2"  # mean over all code entries
    center_weight: Annotated[float, Field(ge=0.0)] = 0.1


class PCPMAERecipe(PointPretrainRecipe):
    """A recipe for PCP-MAE pretraining."""

    card: ClassVar[MethodCard] = MethodCard("arXiv:2408.08753", "verified", ("step",))

    method: PCPMAESection
    model: PCPModelSection
    target: PCPTargetSection


@dataclass(frozen=True)
class Rebuilt:
    """Predictions of one pass for the masked groups.

    Attributes:
        points: (B, M, K, 3), relative to their centres.
        codes: (B, M, D) predicted codes of the centres.
    """

    points: Tensor
    codes: Tensor


class PCPMAE(Method):
    """Masked autoencoder of point clouds that also predicts the centres of masked groups."""

    Recipe = PCPMAERecipe
    encoder: PointTransformer

    # Published checkpoints: aHapBean/PCP-MAE.
    names = Names(
        [
            ("encoder.tokenizer.", "MAE_encoder.encoder."),
            ("encoder.blocks.{}.", "MAE_encoder.blocks.blocks.{}."),
            ("mask_position", "MAE_encoder.mask_pos_token"),
            ("encoder.", "MAE_encoder."),
            ("decoder.mask_token", "mask_token"),
            ("decoder.pred.", "increase_dim.0."),
            ("decoder.", "MAE_decoder."),
            ("centers.proj.", "pred_pos_proj."),
            ("centers.", "pred_pos_decoder."),
        ]
    )

    def __init__(self, recipe: PCPMAERecipe) -> None:
        super().__init__(recipe)
        section, self.target = recipe.model.encoder, recipe.target
        self.grid, self.detach = (section.groups,), recipe.method.detach
        self.sampler = build_sampler(recipe.mask)
        self.encoder = PointTransformer(section)
        self.mask_position = nn.Parameter(torch.zeros(1, 1, section.width))
        self.centers = CenterHead(recipe.model.centers, section)
        self.decoder = PointDecoder(recipe.model.decoder, section, own_positions=False)
        nn.init.trunc_normal_(self.mask_position, std=0.02)

    def prepare(
        self, batch: Batch, noise: Noise, gather: Callable[[Tensor], Tensor] = no_gather
    ) -> Context:
        return Context(noise, gather, {"groups": self.encoder.group(batch.views["points"])})

    def mask(self, batch: Batch, noise: Noise, ctx: Context) -> dict[str, TokenMask]:
        return {"points": self.sampler.sample(noise, self.grid, ctx.prepared["groups"].center)}

    def forward(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> Output:
        """Chamfer distance of the masked groups plus weighted error of their centres' codes;
        ``prediction`` is (B, M, K, 3), relative to the centres."""
        mask, groups = masks["points"], ctx.prepared["groups"]
        rebuilt = self._rebuild(groups, mask, ctx)
        points = mask.gather(groups.points, "masked")  # (B, M, K, 3)
        distance = chamfer(rebuilt.points.flatten(0, 1), points.flatten(0, 1), self.target.norm)
        codes = sincos_points(mask.gather(groups.center, "masked"), self.encoder.width)
        centers = code_error(rebuilt.codes.float(), codes, self.target.center_loss)
        centers = self.target.center_weight * centers
        terms = {"chamfer": distance.detach(), "centers": centers.detach()}
        return Output(distance + centers, terms, rebuilt.points, masks)

    def panels(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> list[Panel]:
        """Original, visible groups, and these with the reconstructed groups at their true and at
        their predicted centres."""
        points, mask, groups = batch.views["points"], masks["points"], ctx.prepared["groups"]
        rebuilt = self._rebuild(groups, mask, ctx)
        found = points_of_sincos(rebuilt.codes)  # (B, M, 3)
        moved = groups.center.scatter(1, mask.masked.unsqueeze(-1).expand_as(found), found)
        placed = cloud_panels(points, replace(groups, center=moved), mask, rebuilt.points)
        return [
            Panel("original", draw_clouds(points, points)),
            *cloud_panels(points, groups, mask, rebuilt.points),
            Panel("at predicted centres", placed[1].images),
        ]

    def no_weight_decay(self) -> set[str]:
        return {"decoder.mask_token", "mask_position"}

    def _rebuild(self, groups: Groups, mask: TokenMask, ctx: Context) -> Rebuilt:
        tokens = self.encoder.tokenizer(groups.points)  # (B, G, D)
        visible, masked = (mask.gather(tokens, part) for part in ("visible", "masked"))
        center = mask.gather(groups.center, "visible")
        hidden = (masked, self.mask_position.to(masked.dtype).expand_as(masked))
        encoded = self.encoder(visible, center, hidden=hidden, noise=ctx.noise).tokens
        latent, content = encoded.split([visible.shape[1], masked.shape[1]], dim=1)
        codes = self.centers(content, ctx.noise.within("centers"))  # (B, M, D)
        told = self.encoder.pos_embed(codes.detach() if self.detach else codes)
        places = torch.cat([self.encoder.positions(center), told], dim=1)  # (B, V + M, D)
        decoded = self.decoder(latent, places, noise=ctx.noise.within("decoder"))
        return Rebuilt(self.decoder.predict(decoded), codes)


def code_error(predicted: Tensor, codes: Tensor, kind: str) -> Tensor:
    """Error of (B, M, D) codes, averaged over all entries; ``cosine``: 1 - mean cosine."""
    if kind == "cosine":
        return 1 - F.cosine_similarity(predicted, codes, dim=-1).mean()
    losses = {"l2": F.mse_loss, "l1": F.l1_loss, "smooth-l1": F.smooth_l1_loss}
    return losses[kind](predicted, codes)
