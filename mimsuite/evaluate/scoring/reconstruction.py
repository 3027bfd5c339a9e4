"""Score reconstructions of images: peak signal-to-noise ratio and absolute error of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.evaluate.scoring.scorer import Figure, Scorer
from mimsuite.targets.codebook import use_of

_SMALLEST = 1e-10  # squared error, so that an exact copy has 100 dB


class JudgedImage(NamedTuple):
    """PSNR in dB and mean absolute error of one image, and of its mean colour in its place."""

    psnr: float
    l1: float
    mean_colour: float


class ReconstructionScorer(Scorer):
    """Means over images."""

    ability = "rebuilt"
    main = "psnr"
    figures: tuple[Figure, ...] = (
        Figure("psnr", "PSNR", "dB"),
        Figure("l1", "L1", "", lower=True),
        Figure("over_mean_colour", "over mean colour", "dB"),
    )

    def judge(self, method: Any, batch: Batch) -> list[JudgedImage]:
        images = method.pixels(batch.image.float())
        rebuilt = method.rebuilt(batch)
        mean = images.mean(dim=(2, 3), keepdim=True).expand_as(images)
        original = (images.clamp(0, 1) * 255).round() / 255  # as the file holds it
        rows = zip(
            picture_psnr(picture(rebuilt), original).tolist(),
            (rebuilt - images).abs().mean(dim=(1, 2, 3)).tolist(),
            picture_psnr(picture(mean), original).tolist(),
            strict=True,
        )
        return [JudgedImage(*row) for row in rows]

    def measure(self, judged: Sequence[JudgedImage]) -> dict[str, float]:
        psnr, l1, plain = (sum(values) / len(judged) for values in zip(*judged, strict=True))
        return {"psnr": psnr, "l1": l1, "over_mean_colour": psnr - plain}


class JudgedCodes(NamedTuple):
    """One image, and the codes (N,) that it was decoded from, of a vocabulary of ``size``."""

    image: JudgedImage
    codes: Tensor
    size: int


class CodedScorer(ReconstructionScorer):
    """The same, and how many codes of the vocabulary all images together use."""

    figures = (
        *ReconstructionScorer.figures,
        Figure("utilisation", "codes used"),
        Figure("perplexity", "perplexity", ""),
        Figure("perplexity_share", "perplexity / codes"),
    )

    def judge(self, method: Any, batch: Batch) -> list[Any]:
        codes = method.codes(batch.image).flatten(1).cpu()
        images = super().judge(method, batch)
        return [
            JudgedCodes(image, row, method.vocabulary)
            for image, row in zip(images, codes, strict=True)
        ]

    def measure(self, judged: Sequence[Any]) -> dict[str, float]:
        size = judged[0].size
        used, perplexity = use_of(torch.cat([one.codes for one in judged]), size)
        return super().measure([one.image for one in judged]) | {
            "utilisation": float(used),
            "perplexity": float(perplexity),
            "perplexity_share": float(perplexity) / size,
        }


def picture_psnr(rebuilt: Tensor, images: Tensor) -> Tensor:
    """(B,) PSNR in dB of images (B, C, H, W) in [0, 1]."""
    error = (rebuilt - images).square().mean(dim=(1, 2, 3))
    return -10 * torch.log10(error.clamp_min(_SMALLEST))


def picture(images: Tensor) -> Tensor:
    """Images clamped to [0, 1] and cut to the 256 values of a picture file."""
    return (images.clamp(0, 1) * 255).floor() / 255
