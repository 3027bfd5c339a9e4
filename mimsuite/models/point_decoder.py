"""The decoder of Point-MAE (arXiv:2203.06604, section 3.3).

Letters: B clouds, G groups, V visible, M masked, K points of a group, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mimsuite.config.keys.points import PointDecoderSection, PointTransformerSection
from mimsuite.masking import TokenMask
from mimsuite.models.blocks import init_linear, run_blocks
from mimsuite.models.drop_path import drop_path
from mimsuite.models.point_net import linear
from mimsuite.models.point_transformer import point_blocks, position_mlp
from mimsuite.noise import Noise


class PointDecoder(nn.Module):
    """Visible latents and a mask token per masked group -> points of the masked groups.

    Args:
        own_positions: use an MLP of its own from centres to positions; else take positions as
            input.
    """

    def __init__(
        self,
        section: PointDecoderSection,
        encoder: PointTransformerSection,
        *,
        own_positions: bool = True,
    ) -> None:
        super().__init__()
        self.section, self.group_size = section, encoder.group_size
        width, eps = encoder.width, encoder.norm_eps
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = position_mlp(width) if own_positions else nn.Identity()
        self.blocks = point_blocks(width, section.depth, section.heads, section.mlp_ratio, eps)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.pred = nn.Conv1d(width, 3 * encoder.group_size, 1)
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        self.blocks.apply(init_linear)

    def forward(
        self,
        latent: Tensor,
        places: Tensor,
        *,
        noise: Noise | None = None,
        everywhere: bool = False,
    ) -> Tensor:
        """Tokens of the last block, before the norm.

        Args:
            latent: (B, V, D) output of the encoder, without class tokens.
            places: (B, V + M, 3) centres of the groups in the order of :func:`visible_first`; or
                (B, V + M, D) positions.
            noise: keyed noise for drop path; needed while training with ``drop_path`` > 0.
            everywhere: return all groups, the visible ones first; else only the masked ones.

        Returns:
            (B, M, D), or (B, V + M, D) with ``everywhere``, in the order of the mask.
        """
        masked = places.shape[1] - latent.shape[1]
        x = torch.cat([latent, self.mask_token.to(latent.dtype).expand(len(latent), masked, -1)], 1)
        keep = drop_path(self, self.section.drop_path, self.section.depth, noise)
        queries = None if everywhere else masked
        positions = self.pos_embed(places)
        return run_blocks(self.blocks, x, keep, positions=positions, queries=queries)[0]

    def predict(self, tokens: Tensor) -> Tensor:
        """(B, n, D) tokens of the last block -> (B, n, K, 3) points relative to their centres."""
        return linear(self.norm(tokens), self.pred).unflatten(-1, (self.group_size, 3))


def visible_first(center: Tensor, mask: TokenMask) -> Tensor:
    """Reorder (B, G, ...): the visible groups, then the masked ones."""
    return torch.cat([mask.gather(center, "visible"), mask.gather(center, "masked")], dim=1)
