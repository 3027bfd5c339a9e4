"""Point cloud corruptions; views are (P, 3) float32 within the unit sphere."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from mimsuite.data.corruptions import Corruption


def jitter(cloud: Tensor, deviation: float, rng: np.random.Generator) -> Tensor:
    """Add Gaussian noise to every coordinate."""
    return cloud + deviation * torch.from_numpy(rng.standard_normal(cloud.shape)).float()


def rotate(cloud: Tensor, degrees: float, rng: np.random.Generator) -> Tensor:
    """Rotate by ``degrees`` about a random axis."""
    x, y, z = rng.standard_normal(3).tolist()
    length = math.sqrt(x * x + y * y + z * z)
    turning = torch.tensor([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]], dtype=torch.float64)
    turn = torch.linalg.matrix_exp(turning * math.radians(degrees) / length)
    turned: Tensor = cloud @ turn.T.float()
    return turned


def drop(cloud: Tensor, share: float, rng: np.random.Generator) -> Tensor:
    """Drop ``share`` of the points; some of the rest are repeated, so that the number stays."""
    kept = rng.permutation(len(cloud))[: max(1, round((1 - share) * len(cloud)))]
    rows = kept[np.arange(len(cloud)) % len(kept)]
    return cloud[torch.from_numpy(rows)]


CORRUPTIONS = (
    Corruption("jitter", (0.01, 0.03, 0.06), "deviation, of the radius", jitter),
    Corruption("rotation", (15.0, 30.0, 60.0), "degrees about a random axis", rotate),
    Corruption("drop", (0.25, 0.5, 0.75), "of the points", drop),
)
