"""VideoMAE (Tong et al., arXiv:2203.12602) and VideoMAE V2 (Wang et al., arXiv:2303.16727).

A tenth of a clip's tubelets, in tubes, is encoded. A small decoder gets their latents, and mask
tokens at other positions, whose pixels it reconstructs. VideoMAE decodes all hidden positions.
VideoMAE V2 (``mask.decoder_ratio``) decodes half of all positions, chosen by running cells, with a
loss on those that are hidden.

Letters: B batch, N tubelets, V visible, M masked, Nd decoded, P = t*p*p*C pixels per tubelet.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import model_validator

from mimsuite.config.keys.masks import ClipMaskSection
from mimsuite.config.keys.shared import MethodCard, MethodSection, Recipe
from mimsuite.config.keys.video import (
    ClipAugmentSection,
    ClipAutoencoderSection,
    ClipDataSection,
    ClipTargetSection,
)
from mimsuite.methods.tubelet_mae import TubeletMAE
from mimsuite.models import VideoViT
from mimsuite.weights.names import Names


class VideoMAESection(MethodSection):
    """`method:` VideoMAE has no keys of its own."""

    name: Literal["videomae"]


class VideoMAERecipe(Recipe):
    """A recipe for VideoMAE or, with `mask.decoder_ratio`, VideoMAE V2 pretraining."""

    card: ClassVar[MethodCard] = MethodCard("arXiv:2303.16727", "verified", ("step", "trajectory"))

    method: VideoMAESection
    model: ClipAutoencoderSection
    mask: ClipMaskSection
    target: ClipTargetSection
    data: ClipDataSection = ClipDataSection()
    augment: ClipAugmentSection = ClipAugmentSection()

    @model_validator(mode="after")
    def _masks_fit_the_grid(self) -> VideoMAERecipe:
        frames, rows, columns = self.model.encoder.grid
        places = rows * columns * (frames if self.mask.kind == "spacetime" else 1)
        hidden = self.mask.hidden(places)
        if hidden in (0, places):
            raise ValueError(
                f"mask.ratio {self.mask.ratio} hides {hidden} of {places} places: at least one "
                f"must be visible and one hidden"
            )
        if not self.mask.decode_visible and (frames % 4 or rows % 2 or columns % 2):
            raise ValueError(
                f"mask.decode_visible=false needs a grid of 4k x 2m x 2n tokens, not {frames} x "
                f"{rows} x {columns}"
            )
        return self


class VideoMAE(TubeletMAE):
    """Masked autoencoder of tubelets."""

    Recipe = VideoMAERecipe
    # Published checkpoints: OpenGVLab/VideoMAEv2, MCG-NJU/VideoMAE
    names: ClassVar[Names | None] = Names(
        [
            ("decoder.mask_token", "mask_token"),
            ("decoder.embed.weight", "encoder_to_decoder.weight"),
        ]
    )
    encoder: VideoViT

    def __init__(self, recipe: VideoMAERecipe) -> None:
        super().__init__(recipe, VideoViT(recipe.model.encoder))
