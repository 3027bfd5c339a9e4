"""`target:` what methods predict. Nothing here imports torch."""

from __future__ import annotations

from typing import Literal

from mimsuite.config.section import Section


class PixelTargetSection(Section):
    """`target:` the pixels of each masked patch."""

    kind: Literal["pixels"] = "pixels"
    normalize: bool  # each patch to zero mean and unit variance (MAE's norm_pix_loss)
