"""Layer decay of the VideoMAE family, by the product's own parameter groups."""

from __future__ import annotations

from typing import Any

from golden import build
from golden.case import Case
from mimsuite.train.optim import param_groups


def layer_decay(case: Case, entry: dict[str, Any]) -> dict[str, Any]:
    """Scales from the embeddings to the head, and those of some parameters."""
    depth, decay = entry["args"]["depth"], entry["args"]["layer_decay"]
    document = {
        "method": {"name": "classify-video"},
        "model": {
            "encoder": {"width": 8, "heads": 1, "depth": depth, "image_size": 16, "frames": 2},
            "head_init_std": 0.02,
        },
        "target": {"classes": 2},
        **build.idle_sections(),
    }
    method = build.method_of(document, meta=True)
    names = build.published_names(method)
    groups = param_groups(method, 0.05, decay)
    scales = {names[name]: group["lr_scale"] for group in groups for name in group["names"]}
    asked = entry.get("expected", {}).get("param_scale", scales)
    return {
        "scales": sorted(set(scales.values())),
        "param_scale": {name: scales.get(name) for name in asked},
    }
