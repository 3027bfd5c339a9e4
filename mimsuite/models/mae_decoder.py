"""MAE's decoder: predicts all masked tokens in one sequence.

It computes the published function; :mod:`mimsuite.models.predictor` explains the order of tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mimsuite.config.keys.encoders import DecoderSection
from mimsuite.masking import TokenMask
from mimsuite.models.encoder import ImageEncoder
from mimsuite.models.features import Features
from mimsuite.models.predictor import Predictor


class MAEDecoder(Predictor):
    """(class and visible latents, mask) -> predictions of ``out_width`` numbers per token.

    Attributes:
        layers: numbers of the encoder layers that it reads besides the output: none.
    """

    layers: tuple[int, ...] = ()

    def __init__(self, section: DecoderSection, encoder: ImageEncoder, out_width: int) -> None:
        eps, classes = encoder.section.norm_eps, encoder.class_tokens
        super().__init__(section, encoder.width, out_width, encoder.grid, eps, classes)

    def forward(  # type: ignore[override]
        self, latent: Features, mask: TokenMask, everywhere: bool = False
    ) -> Tensor:
        """Predictions in the mask's order.

        Returns:
            (B, Nd, out_width) for the decoded tokens; with ``everywhere`` (B, V + M, out_width)
            for the visible tokens, then the masked ones.
        """
        seen = self.seen(torch.cat([latent.cls, latent.tokens], dim=1), mask.visible)
        asked = mask.masked if everywhere else mask.ids("decoded")
        x = torch.cat([seen, self.asked(asked, seen.dtype)], dim=1)
        return self.run(x, mask.tokens if everywhere else asked.shape[1])
