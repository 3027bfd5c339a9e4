"""MAE on time series of rasters of many bands, in the manner of Prithvi (Jakubik et al.,
arXiv:2310.18660; Szwarcman et al., arXiv:2412.02732; after He et al., arXiv:2111.06377).

A random quarter of the tubelets of a window is encoded; a small decoder sees their latents, and a
mask token in every other place, and rebuilds the hidden tubelets. Pixels that were not observed
carry no loss. Codes of place and dates may be added to the tokens of both.

Unlike Prithvi there is no class token, and keys of attention have no bias, which changes no
softmax.

Letters: B batch, N tubelets, V visible, M masked, P = t*p*p*C pixels of a tubelet.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import model_validator
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.config.keys.bands import (
    RasterAugmentSection,
    RasterAutoencoderSection,
    RasterDataSection,
    RasterTargetSection,
)
from mimsuite.config.keys.masks import RandomMaskSection, require_both
from mimsuite.config.keys.shared import MethodCard, MethodSection, Recipe
from mimsuite.masking import TokenMask, gather_tokens
from mimsuite.methods.base import Context, Output, Panel
from mimsuite.methods.tubelet_mae import TubeletMAE
from mimsuite.models import PlaceAndDates, RasterViT
from mimsuite.pictures.rasters import in_colours
from mimsuite.targets import TubeletTarget


class MAEBandsSection(MethodSection):
    """`method:` it has no keys of its own: model, mask and target say it all."""

    name: Literal["mae-bands"]


class MAEBandsRecipe(Recipe):
    """A recipe for masked pretraining on rasters."""

    card: ClassVar[MethodCard] = MethodCard("arXiv:2412.02732", "experimental", ())

    method: MAEBandsSection
    model: RasterAutoencoderSection
    mask: RandomMaskSection
    target: RasterTargetSection
    data: RasterDataSection = RasterDataSection()
    augment: RasterAugmentSection  # type: ignore[assignment]

    @model_validator(mode="after")
    def _something_to_see_and_to_rebuild(self) -> MAEBandsRecipe:
        frames, rows, columns = self.model.encoder.grid
        visible = self.mask.visible(frames * rows * columns)
        require_both(f"mask.ratio {self.mask.ratio}", visible, frames * rows * columns, "tubelets")
        return self

    @model_validator(mode="after")
    def _turned_windows_keep_their_shape(self) -> MAEBandsRecipe:
        self.augment.require_turnable(self.model.encoder.size)
        return self


class MAEBands(TubeletMAE):
    """Masked autoencoder on tubelets of rasters."""

    Recipe = MAEBandsRecipe
    encoder: RasterViT

    def __init__(self, recipe: MAEBandsRecipe) -> None:
        section = recipe.model.encoder
        super().__init__(recipe, RasterViT(section), table=RasterViT.positions)
        shown = recipe.augment.shown if self.channels >= 3 else (1,)
        self.shown = [band - 1 for band in shown]
        # Targets are in units of the normalised input: stored ones differ by band.
        self.target = TubeletTarget(recipe.target, (0.0,), (1.0,))
        self.decoder_added = PlaceAndDates(recipe.model.decoder.width, section)

    def forward(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> Output:
        """Mean squared error over the observed pixels of hidden tubelets; ``prediction`` is
        (B, M, P). Their number differs between windows, so the loss is a ratio of sums."""
        mask = masks["clip"]
        prediction = self._predict(batch, mask, ctx)  # (B, M, P)
        valid = self._valid(batch, mask.masked)
        hidden = self.encoder.tubelets(batch.views["clip"], mask.masked)
        target = self.target(hidden, self.channels, valid)
        loss, weight = self.target.loss(prediction, target, valid)
        return Output(loss, {"pixels": loss.detach()}, prediction, masks, weight)

    def reconstruct(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> Tensor:
        """Predictions of the hidden tubelets: (B, M, P)."""
        return self._predict(batch, masks["clip"], ctx)

    def panels(self, batch: Batch, masks: dict[str, TokenMask], ctx: Context) -> list[Panel]:
        """Three bands as red, green and blue: original, masked, and the hidden part rebuilt; grey
        was not observed."""
        mask, clips = masks["clip"], batch.views["clip"].float()
        vectors = self.encoder.tubelets(clips)  # (B, N, P)
        hidden, valid = mask.gather(vectors, "masked"), self._valid(batch, mask.masked)
        prediction = self.reconstruct(batch, masks, ctx)
        rebuilt = self.target.denormalize(prediction, hidden, self.channels, valid)
        seen = mask.gather(vectors, "visible")
        whole = gather_tokens(torch.cat([seen, rebuilt], dim=1), mask.restore())
        hole = torch.zeros_like(vectors).masked_fill(mask.dense().unsqueeze(-1), 1.0)
        note = " (true tubelet mean and contrast)" if self.target.normalize else ""
        known = batch.views["valid"] > 0

        def panel(title: str, images: Tensor, hidden: Tensor | None = None) -> Panel:
            pixels = in_colours(images, clips, known, self.shown, hidden)
            return Panel(title, pixels, normalised=False)

        return [
            panel("original", clips),
            panel("masked", clips, self._untubed(hole) > 0),
            panel("reconstruction" + note, self._untubed(whole)),
        ]

    def no_weight_decay(self) -> set[str]:
        scales = {name for name, _ in self.named_parameters() if "added." in name}
        return super().no_weight_decay() | scales

    def _predict(self, batch: Batch, mask: TokenMask, ctx: Context) -> Tensor:
        views = batch.views
        visible = self.encoder.tubelets(views["clip"], mask.visible)  # (B, V, P)
        added = self.encoder.added(views, self.grid)
        latent = self.encoder(visible, mask.visible, noise=ctx.noise, added=added)
        prediction: Tensor = self.decoder(latent, mask, added=self.decoder_added(views, self.grid))
        return prediction

    def _valid(self, batch: Batch, ids: Tensor) -> Tensor:
        """(B, K, P) bool, the pixels that were observed."""
        return self.encoder.tubelets(batch.views["valid"], ids) > 0
