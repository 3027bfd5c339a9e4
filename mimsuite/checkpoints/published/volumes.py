"""The checkpoints of zubair-irshad/NeRF-MAE: its 3-D window transformer and its decoder.

The trainer writes ``{"epoch", "state_dict", "train_args"}``; ``train_args`` holds its command-line
options, which do not include the size of the backbone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mimsuite.checkpoints.published.layout import Published, published
from mimsuite.checkpoints.shapes import Hints, mlp_ratio, of_rank
from mimsuite.errors import UserError
from mimsuite.methods.nerf_mae import NeRFMAE
from mimsuite.weights.files import WeightsFile

_KERNEL = "patch_partition.0.weight"
_TABLE = "attn.relative_position_bias_table"


def understand(file: WeightsFile, hints: Hints) -> Published | None:
    """The checkpoint in our terms; ``None`` if it is of another family.

    Raises:
        UserError: a size that cannot be inferred.
    """
    tensors = file.tensors
    if _KERNEL not in tensors or f"stages.0.0.{_TABLE}" not in tensors:
        return None
    keys = {f"model.encoder.{key}": value for key, value in _encoder(tensors).items()}
    ratio = file.facts.get("masking_prob")
    if isinstance(ratio, float) and 0 < ratio < 1:
        keys["mask.ratio"] = ratio
    unet = "decoder4.transp_conv.weight" in tensors
    layout = "NeRF-MAE encoder and decoder" if unet else "NeRF-MAE encoder without decoder"
    return published(file, NeRFMAE, layout, "volume/nerf-mae-swin-s", keys, [])


def _encoder(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    kernel = of_rank(tensors, _KERNEL, 5)  # (D, C, p, p, p)
    width, channels, patch = kernel.shape[:3]
    table = of_rank(tensors, "pos_embed", 5)  # (1, S, S, S, D)
    side = table.shape[1]
    if channels != 4 or table.shape[1:4] != (side, side, side):
        raise UserError("its volumes are not cubes of colour and opacity: not supported")
    stages = [_stage(tensors, number) for number in range(4)]
    rows = of_rank(tensors, f"stages.0.0.{_TABLE}", 2).shape[0]  # (2 w - 1)^3
    hidden = of_rank(tensors, "stages.0.0.mlp.0.weight", 2).shape[0]
    return {
        "resolution": side * patch,
        "patch_size": patch,
        "width": width,
        "depths": [depth for depth, _ in stages],
        "heads": [heads for _, heads in stages],
        "window": (round(rows ** (1 / 3)) + 1) // 2,
        "mlp_ratio": mlp_ratio(hidden, width),
    }


def _stage(tensors: Mapping[str, Tensor], number: int) -> tuple[int, int]:
    """Blocks and heads of a stage; patch merging in later stages is not a block."""
    lead = f"stages.{number}."
    names = [name for name in tensors if name.startswith(lead) and name.endswith(_TABLE)]
    if not names:
        raise UserError(f"its stage {number} holds no blocks: only 4-stage encoders are supported")
    return len(names), of_rank(tensors, names[0], 2).shape[1]
