"""The head of PCP-MAE that predicts the centres of masked groups (arXiv:2408.08753).

Letters: B clouds, M masked groups, D width.
"""

from __future__ import annotations

from torch import Tensor, nn

from mimsuite.config.keys.points import CenterHeadSection, PointTransformerSection
from mimsuite.models.blocks import init_linear, run_blocks
from mimsuite.models.drop_path import drop_path
from mimsuite.models.point_transformer import point_blocks
from mimsuite.noise import Noise


class CenterHead(nn.Module):
    """(B, M, D) encoded tokens of masked groups -> (B, M, D) codes of their centres."""

    def __init__(self, section: CenterHeadSection, encoder: PointTransformerSection) -> None:
        super().__init__()
        self.section = section
        width, eps = encoder.width, encoder.norm_eps
        self.blocks = point_blocks(width, section.depth, section.heads, section.mlp_ratio, eps)
        self.norm = nn.LayerNorm(width, eps=eps) if section.depth else nn.Identity()
        self.proj = nn.Sequential(
            nn.Linear(width, width), nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, width)
        )
        self.blocks.apply(init_linear)

    def forward(self, tokens: Tensor, noise: Noise | None = None) -> Tensor:
        """Predicted codes; ``noise`` is needed while training with ``drop_path`` > 0."""
        keep = drop_path(self, self.section.drop_path, self.section.depth, noise)
        x, _ = run_blocks(self.blocks, tokens, keep)
        codes: Tensor = self.proj(self.norm(x))
        return codes
