"""CAE's regressor and decoder (Chen et al., arXiv:2202.03026). Nothing here imports torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from mimsuite.config.keys.section import Dimension, DropPath, Key, Section, require_divides


class RegressorSection(Section):
    """Cross-attention that predicts the latents of masked patches from those of visible ones."""

    width: Dimension = 768  # token width; if it differs from the encoder's, a linear map is added
    depth: Dimension = 4
    heads: Dimension = 12
    mlp_ratio: Annotated[float, Field(gt=0.0)] = 4.0
    layer_scale: Annotated[float, Field(ge=0.0)] = 0.1  # initial branch scale; 0: fixed at 1
    drop_path: DropPath = 0.0  # rate in the last block; rises linearly from 0 in the first

    @model_validator(mode="after")
    def _fits(self) -> RegressorSection:
        require_divides("heads", self.heads, "width", self.width)
        if self.width % 4:
            raise ValueError(f"width {self.width} must be a multiple of 4 for sin-cos positions")
        return self


class TokenDecoderSection(Section):
    """Self-attention over the predicted latents, then one score per code.

    Width, heads, MLP and layer scale are the regressor's.
    """

    depth: Annotated[int, Field(ge=0), Key.SIZE] = 4
    drop_path: DropPath = 0.0  # rate in the last block; rises linearly from 0 in the first
