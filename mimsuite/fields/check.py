"""Statistics of a sampled grid."""

from __future__ import annotations

from typing import Any

import torch

from mimsuite.fields.sample import Grid
from mimsuite.targets.radiance import opacity

_OCCUPIED = 0.01


def facts_of(grid: Grid) -> dict[str, Any]:
    """Resolution, box and share of occupied voxels; a warning where opacity is saturated or 0."""
    alpha = opacity(torch.from_numpy(grid.values[..., 3]), grid.density_kind, grid.delta)
    occupied = alpha > _OCCUPIED
    facts = {
        "resolution": " x ".join(map(str, grid.values.shape[:3])),
        "box": [[round(float(x), 4) for x in corner] for corner in grid.box],
        "density": grid.density_kind,
        "occupied": round(float(occupied.float().mean()), 4),
    }
    if bool(occupied.any()):
        middle = float(alpha[occupied].median())
        facts["opacity_median"] = round(middle, 4)
        if middle > 0.999:
            facts["warning"] = "most occupied voxels are fully opaque: try a smaller delta"
    else:
        facts["warning"] = "nothing is occupied: is the box right, and delta large enough?"
    return facts
