"""Point-MAE: Masked Autoencoders for Point Cloud Self-supervised Learning (Pang et al.,
arXiv:2203.06604).

A cloud is divided into overlapping groups of points. The encoder sees the visible groups. A decoder
of the same width gets the centres of the masked groups and reconstructs their points (section 3 of
the paper).

Letters: B clouds, N points, G groups, V visible, M masked, K points per group, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.config.keys.points import PointPretrainRecipe
from mimsuite.config.keys.shared import MethodCard, MethodSection
from mimsuite.masking import TokenMask, build_sampler
from mimsuite.methods.base import Context, Method, Output, Panel, no_gather
from mimsuite.models import PointDecoder, PointTransformer
from mimsuite.models.point_decoder import visible_first
from mimsuite.noise import Noise
from mimsuite.pictures.clouds import draw_clouds
from mimsuite.targets.chamfer import chamfer
from mimsuite.tokens import Groups
from mimsuite.weights.names import Names


class PointMAESection(MethodSection):
    """`method:` keys of Point-MAE."""

    name: Literal["point-mae"]
    # Groups that the tokenizer embeds: all, as published, or only the visible ones at half the
    # cost; its batch norm statistics then exclude masked groups
    tokenize: Literal["all", "visible"] = "all"


class PointMAERecipe(PointPretrainRecipe):
    """A recipe for Point-MAE pretraining."""

    card: ClassVar[MethodCard] = MethodCard("arXiv:2203.06604", "verified", ("step",))

    method: PointMAESection


class PointMAE(Method):
    """Masked autoencoder of point clouds."""

    Recipe = PointMAERecipe
    encoder: PointTransformer

    # Published checkpoints: Pang-Yatian/Point-MAE.
    names = Names(
        [
            ("encoder.tokenizer.", "MAE_encoder.encoder."),
            ("encoder.blocks.{}.", "MAE_encoder.blocks.blocks.{}."),
            ("encoder.", "MAE_encoder."),
            ("decoder.mask_token", "mask_token"),
            ("decoder.pos_embed.", "decoder_pos_embed."),
            ("decoder.pred.", "increase_dim.0."),
            ("decoder.", "MAE_decoder."),
        ]
    )

    def __init__(self, recipe: PointMAERecipe) -> None:
        super().__init__(recipe)
        section = recipe.model.encoder
        self.grid, self.tokenize = (section.groups,), recipe.method.tokenize
        self.norm = recipe.target.norm
        self.sampler = build_sampler(recipe.mask)
        self.encoder = PointTransformer(section)
        self.decoder = PointDecoder(recipe.model.decoder, section)

    def prepare(
        self, batch: Batch, noise: Noise, gather: Callable[[Tensor], Tensor] = no_gather
    ) -> Context:
        return Context(noise, gather, {"groups": self.encoder.group(batch.views["points"])})

    def mask(self, batch: Batch, noise: Noise, ctx: Context) -> dict[str, TokenMask]:
        return {"points": self.sampler.sample(noise, self.grid, ctx.prepared["groups"].center)}

    def forward(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> Output:
        """Chamfer distance of the masked groups; ``prediction`` is (B, M, K, 3), relative to the
        centres."""
        mask, groups = masks["points"], ctx.prepared["groups"]
        prediction = self._rebuild(groups, mask, ctx)
        target = mask.gather(groups.points, "masked")  # (B, M, K, 3)
        loss = chamfer(prediction.flatten(0, 1), target.flatten(0, 1), self.norm)
        return Output(loss, {"chamfer": loss.detach()}, prediction, masks)

    def panels(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> list[Panel]:
        """Original, visible groups, and these with the reconstructed groups."""
        points, mask, groups = batch.views["points"], masks["points"], ctx.prepared["groups"]
        drawn = Panel("original", draw_clouds(points, points))
        return [drawn, *cloud_panels(points, groups, mask, self._rebuild(groups, mask, ctx))]

    def no_weight_decay(self) -> set[str]:
        return {"decoder.mask_token"}

    def _rebuild(self, groups: Groups, mask: TokenMask, ctx: Context) -> Tensor:
        """(B, M, K, 3) points of the masked groups, relative to their centres."""
        if self.tokenize == "visible":
            visible = self.encoder.tokenizer(mask.gather(groups.points, "visible"))
        else:
            visible = mask.gather(self.encoder.tokenizer(groups.points), "visible")  # (B, V, D)
        center = mask.gather(groups.center, "visible")
        latent = self.encoder(visible, center, noise=ctx.noise)
        places = visible_first(groups.center, mask)
        tokens = self.decoder(latent.tokens, places, noise=ctx.noise.within("decoder"))
        return self.decoder.predict(tokens)


def cloud_panels(
    points: Tensor, groups: Groups, mask: TokenMask, rebuilt: Tensor, of: str = ""
) -> list[Panel]:
    """The visible groups, and these with the reconstructed groups in another colour.

    Args:
        points: (B, N, 3) whole clouds; they set the viewpoint and are not drawn here.
        rebuilt: (B, M, K, 3) relative to the centres of the masked groups.
        of: added to the titles.
    """

    def absolute(members: Tensor, part: str) -> Tensor:
        return (members + mask.gather(groups.center, part).unsqueeze(2)).flatten(1, 2)

    seen = absolute(mask.gather(groups.points, "visible"), "visible")
    made = absolute(rebuilt.float(), "masked")
    shown = f"masked{of}: {mask.visible.shape[1]} of {mask.tokens} groups left"
    return [
        Panel(shown, draw_clouds(seen, points)),
        Panel(
            f"reconstruction{of}", draw_clouds(torch.cat([seen, made], 1), points, made.shape[1])
        ),
    ]
