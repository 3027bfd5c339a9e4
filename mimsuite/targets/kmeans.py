"""Codes of patches by k-means: a tokenizer that needs only the training data.

At the start of a run, Lloyd's algorithm fits the centres to patches of the first training views.
From then on they are part of the model's state, so checkpoints and exports hold them.

Letters: B batch, N patches, S patches to fit, P = p*p*C numbers of a patch, K codes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from mimsuite.batch import Batch
from mimsuite.config.keys.targets import PixelTargetSection
from mimsuite.config.keys.tokenizers import KMeansTokenizerSection
from mimsuite.errors import DataError
from mimsuite.noise import keyed_rng
from mimsuite.targets.pixels import PixelTarget
from mimsuite.targets.tokenizers import Batches, Tokenizer
from mimsuite.tokens import patchify

_SEEDS = 16  # candidate patches per code for the initial centres
_ROWS = 8192  # patches per block of distances


class KMeansTokenizer(nn.Module, Tokenizer):
    """Assigns each patch, optionally normalised, to the nearest of K centres."""

    centres: Tensor
    fitted: Tensor

    def __init__(self, section: KMeansTokenizerSection, patch: int, channels: int) -> None:
        super().__init__()
        self.section, self.patch = section, patch
        self.pixels = PixelTarget(PixelTargetSection(normalize=section.normalize))
        self.drawing_note = " (true patch mean and contrast)" if section.normalize else ""
        self.register_buffer("centres", torch.zeros(section.codes, patch * patch * channels))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))

    def forward(self, batch: Batch) -> Tensor:
        """(B, N) int64 codes, computed in float32 also under autocast."""
        patches = self.pixels(patchify(batch.image, self.patch))  # (B, N, P)
        with torch.no_grad(), torch.autocast(patches.device.type, enabled=False):
            return nearest(patches.flatten(0, 1), self.centres).view(len(patches), -1)

    def setup(self, batches: Batches, seed: int) -> list[str]:
        if batches is None or bool(self.fitted):
            return []
        patches = self._collect(batches())
        centres = fit(patches, self.section.codes, self.section.iterations, seed)
        self.centres.copy_(centres)
        self.fitted.fill_(True)
        spread = _spread(patches, centres)
        return [
            f"tokenizer: {len(centres)} k-means codes of {len(patches)} patches; "
            f"{spread:.0%} of their variance is left within the codes"
        ]

    def draw(self, codes: Tensor, patches: Tensor) -> Tensor:
        """(B, N, P): the centres themselves."""
        return self.pixels.denormalize(self.centres[codes], patches)

    def _collect(self, batches: Iterable[Batch]) -> Tensor:
        """(S, P) patches from the start of the training stream.

        Raises:
            DataError: fewer patches than codes.
        """
        samples, collected, parts = self.section.samples, 0, []
        for number, batch in enumerate(batches):
            patches = self.pixels(patchify(batch.image, self.patch)).flatten(0, 1).cpu()
            # Take one patch in eight, so that the sample covers more images.
            rows = keyed_rng("k-means rows", number).permutation(len(patches))
            parts.append(patches[torch.from_numpy(rows[: max(1, len(rows) // 8)])])
            collected += len(parts[-1])
            if collected >= samples:
                break
        patches = torch.cat(parts)[:samples] if parts else torch.empty(0, 0)
        if len(patches) < self.section.codes:
            raise DataError(
                f"target.tokenizer.codes is {self.section.codes}, the data gave only "
                f"{len(patches)} patches"
            )
        return patches


def fit(patches: Tensor, codes: int, iterations: int, seed: int) -> Tensor:
    """K-means by Lloyd's algorithm, deterministic.

    A centre that loses all its patches is moved to one of the patches farthest from their centres.

    Args:
        patches: (S, P) float32, S >= codes.

    Returns:
        (K, P) centres.
    """
    rng = keyed_rng(seed, "k-means")
    some = rng.permutation(len(patches))[: _SEEDS * codes]
    centres = _spread_out(patches[torch.from_numpy(some)], codes, rng)
    for _ in range(iterations):
        code = nearest(patches, centres)
        count = torch.bincount(code, minlength=codes)
        total = torch.zeros_like(centres).index_add_(0, code, patches)
        lost = (count == 0).nonzero().squeeze(1)
        if len(lost):
            far = (patches - centres[code]).square().sum(1).topk(len(lost)).indices
        centres = total / count.clamp_min(1)[:, None]
        if len(lost):
            centres[lost] = patches[far]
    return centres


def _spread_out(patches: Tensor, codes: int, rng: np.random.Generator) -> Tensor:
    """Initial centres by k-means++ (Arthur & Vassilvitskii, 2007).

    Each centre is drawn in proportion to its squared distance from the nearest one before it.
    """
    chosen = [int(rng.integers(len(patches)))]
    distance = torch.full((len(patches),), math.inf)
    while len(chosen) < codes:
        last = (patches - patches[chosen[-1]]).square().sum(1)
        distance = torch.minimum(distance, last)
        distance[chosen] = 0.0
        reach = distance.double().cumsum(0)
        at = int(torch.searchsorted(reach, float(rng.random()) * float(reach[-1]), right=True))
        chosen.append(min(at, len(patches) - 1))
    return patches[torch.tensor(chosen)].clone()


def nearest(patches: Tensor, centres: Tensor) -> Tensor:
    """(S,) int64 id of the nearest centre for each of (S, P) patches."""
    half = centres.square().sum(1) / 2
    parts = [(rows @ centres.T - half).argmax(1) for rows in patches.split(_ROWS)]
    return torch.cat(parts)


def _spread(patches: Tensor, centres: Tensor) -> float:
    within = (patches - centres[nearest(patches, centres)]).square().sum()
    return float(within / (patches - patches.mean(0)).square().sum().clamp_min(1e-12))
