"""Score super-resolution: peak signal-to-noise ratio of colour in occupied voxels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mimsuite.batch import Batch
from mimsuite.evaluate.scoring.scorer import Figure, Scorer
from mimsuite.targets.radiance import colour_error

_BEST = 100.0  # dB, for a scene without error


class JudgedGrid(NamedTuple):
    """Mean squared error of one scene: of the method, and of trilinear interpolation."""

    error: float
    trilinear: float


class FinerScorer(Scorer):
    """Means over scenes with occupied voxels."""

    ability = "super_resolution"
    main = "psnr"
    figures = (Figure("psnr", "PSNR", "dB"), Figure("over_trilinear", "over trilinear", "dB"))

    def judge(self, method: Any, batch: Batch) -> list[JudgedGrid]:
        coarse, fine = batch.views["grid"], batch.views["fine"]
        occupied = self.recipe.target.occupied
        error, count = colour_error(method.super_resolution(coarse), fine, occupied)
        plain, _ = colour_error(_trilinear(batch), fine, occupied)
        rows = zip(error.tolist(), plain.tolist(), count.tolist(), strict=True)
        return [JudgedGrid(e / n, p / n) for e, p, n in rows if n]

    def measure(self, judged: Sequence[JudgedGrid]) -> dict[str, float]:
        ours = _mean([psnr(scene.error) for scene in judged])
        return {
            "psnr": ours,
            "over_trilinear": ours - _mean([psnr(scene.trilinear) for scene in judged]),
        }


def _trilinear(batch: Batch) -> Tensor:
    """(B, 4, S, S, S): each scene upsampled trilinearly to its finer size."""
    stretched = torch.zeros_like(batch.views["fine"])
    scenes = (batch.views[name].tolist() for name in ("size", "fine_size"))
    for row, ((x, y, z), (fx, fy, fz)) in enumerate(zip(*scenes, strict=True)):
        scene = batch.views["grid"][row, None, :, :x, :y, :z]
        stretched[row, :, :fx, :fy, :fz] = F.interpolate(
            scene, size=(fx, fy, fz), mode="trilinear", align_corners=True
        )[0]
    return stretched


def psnr(error: float) -> float:
    """PSNR in dB from a mean squared error of values in [0, 1]; at most 100."""
    return min(_BEST, -10 * math.log10(error)) if error > 0 else _BEST


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
