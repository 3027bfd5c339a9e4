"""The pretraining checkpoints of zubair-irshad/NeRF-MAE. Every size is told by some tensor."""

from __future__ import annotations

from mimsuite.errors import UserError
from mimsuite.export.architecture import Hints, count_blocks, mlp_ratio, of_rank
from mimsuite.export.published.layout import Published, published
from mimsuite.export.weights_file import WeightsFile
from mimsuite.methods.nerf_mae import NeRFMAE

_KERNEL = "patch_partition.0.weight"
_STAGES = 4
_CHANNELS = 4


def understand(file: WeightsFile, hints: Hints) -> Published | None:
    """The checkpoint in our terms; ``None`` if it is of another family.

    Raises:
        UserError: a size that cannot be told.
    """
    kernel = file.tensors.get(_KERNEL)
    if kernel is None or kernel.ndim != 5 or "mask_token" not in file.tensors:
        return None
    found = published(file, NeRFMAE, "NeRF-MAE", "volume/nerf-mae-swin-s", {}, [])
    width, channels, patch = kernel.shape[:3]  # (C, 4, p, p, p)
    if channels != _CHANNELS:
        raise UserError(f"{channels} channels, not colour and opacity: only those are read")
    tables = [
        of_rank(found.state, f"{_block(stage)}.attn.relative_position_bias_table", 2)
        for stage in range(_STAGES)  # ((2 w - 1)**3, heads)
    ]
    side = round(of_rank(found.state, "encoder.pos_embed", 5).shape[1])
    span = round(len(tables[0]) ** (1 / 3))
    if span**3 != len(tables[0]):
        raise UserError("the attention windows are no cubes, which is not read")
    hidden = of_rank(found.state, f"{_block(0)}.mlp.fc1.weight", 2).shape[0]
    keys = {
        "resolution": side * patch,
        "patch_size": patch,
        "width": width,
        "depths": [
            count_blocks(found.state, f"encoder.stages.{stage}.blocks.") for stage in range(_STAGES)
        ],
        "heads": [table.shape[1] for table in tables],
        "window": (span + 1) // 2,
        "mlp_ratio": mlp_ratio(hidden, width),
    }
    found.keys.update({f"model.encoder.{key}": value for key, value in keys.items()})
    return found


def _block(stage: int) -> str:
    return f"encoder.stages.{stage}.blocks.0"
