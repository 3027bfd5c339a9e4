"""MAE's decoder: a predictor of all masked tokens in one sequence.

The function is the published one; see :mod:`mimsuite.models.predictor` for the order of tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mimsuite.config.keys.encoders import DecoderSection
from mimsuite.masking import TokenMask
from mimsuite.models.features import Features
from mimsuite.models.predictor import Predictor


class MAEDecoder(Predictor):
    """(class, visible latents, mask) -> predictions of ``out_width`` numbers a token."""

    def __init__(
        self,
        section: DecoderSection,
        in_width: int,
        out_width: int,
        grid: tuple[int, int],
        eps: float,
        class_tokens: int = 1,
    ) -> None:
        super().__init__(section, in_width, out_width, grid, eps, class_tokens)

    def forward(  # type: ignore[override]
        self, latent: Features, mask: TokenMask, everywhere: bool = False
    ) -> Tensor:
        """Predictions in the mask's order.

        Returns:
            (B, M, out_width) for the masked tokens; with ``everywhere`` (B, V + M, out_width) for
            the visible tokens and then the masked ones.
        """
        seen = self.seen(torch.cat([latent.cls, latent.tokens], dim=1), mask.visible)
        x = torch.cat([seen, self.asked(mask.masked, seen.dtype)], dim=1)
        return self.run(x, mask.tokens if everywhere else mask.masked.shape[1])
