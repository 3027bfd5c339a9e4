"""An encoder of cubes of a volume: the plain transformer of clips, with a cube for a tubelet.

Positions are sin-cos codes of x, y and z, a third of the width each.
"""

from __future__ import annotations

from torch import Tensor

from mimsuite.models.video_vit import VideoViT
from mimsuite.tokens import resize_clip_positions
from mimsuite.tokens.volume import sincos_3d


class CubeViT(VideoViT):
    """Encoder of visible cubes, without class token; positions are fixed and not stored."""

    view = "scan"

    @staticmethod
    def positions(
        width: int, trained: tuple[int, int, int], grid: tuple[int, int, int] | None = None
    ) -> Tensor:
        """(1, N, width) positions of the grid ``trained``, resized to ``grid``."""
        table = sincos_3d(width, trained).reshape(1, -1, width)
        return resize_clip_positions(table, trained, grid or trained)
