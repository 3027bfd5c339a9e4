"""The transformer of Point-BERT and Point-MAE over groups of points.

Positions are an MLP of the group centres or of their sin-cos codes; they are added before every
block.

Letters: B clouds, G groups, V visible, H hidden, K points of a group, C class tokens, D width.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from mimsuite.batch import Batch
from mimsuite.config.keys.points import PointTransformerSection
from mimsuite.models.blocks import Block, run_blocks
from mimsuite.models.drop_path import drop_path
from mimsuite.models.encoder import Encoder
from mimsuite.models.features import Features
from mimsuite.models.point_net import MiniPointNet
from mimsuite.noise import Noise
from mimsuite.tokens import Groups, group
from mimsuite.tokens.positions import sincos_points
from mimsuite.weights.names import Names

POOLS = ("cls_max", "max", "mean")  # maximum first, as tokens are maxima over points


class ClassToken(nn.Module):
    """A learned token with a learned position, which a method passes to the encoder."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.cls_pos = nn.Parameter(torch.zeros(1, 1, width))
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.cls_pos, std=0.02)


class PointTransformer(Encoder):
    """Encoder of groups of points, called with tokens and the centres of their groups.

    It has no class token of its own: methods that need one pass it in.
    """

    published = Names(
        [
            ("encoder.tokenizer.", "encoder."),
            ("encoder.blocks.{}.", "blocks.blocks.{}."),
            ("encoder.pos_embed.", "pos_embed."),
            ("encoder.norm.", "norm."),
        ]
    )
    embeddings = ("tokenizer.", "pos_embed.")
    section: PointTransformerSection

    def __init__(self, section: PointTransformerSection) -> None:
        super().__init__(section)
        self.width, self.depth = section.width, section.depth
        self.tokenizer = MiniPointNet(section.width, section.tokenizer)
        coded = section.positions == "sincos"
        self.pos_embed = code_mlp(section.width) if coded else position_mlp(section.width)
        self.blocks = point_blocks(
            section.width, section.depth, section.heads, section.mlp_ratio, section.norm_eps
        )
        self.norm = nn.LayerNorm(section.width, eps=section.norm_eps)
        self.apply(_init_truncated)

    def group(self, points: Tensor) -> Groups:
        """(B, N, 3) clouds -> their groups."""
        section = self.section
        return group(points, section.groups, section.group_size, section.sampling)

    def positions(self, center: Tensor) -> Tensor:
        """(B, G, 3) centres -> (B, G, D)."""
        if self.section.positions == "sincos":
            center = sincos_points(center, self.width)
        positions: Tensor = self.pos_embed(center)
        return positions

    def forward(
        self,
        tokens: Tensor,
        center: Tensor,
        cls: ClassToken | None = None,
        hidden: tuple[Tensor, Tensor] | None = None,
        *,
        noise: Noise | None = None,
        layers: Collection[int] = (),
    ) -> Features:
        """Encode tokens.

        Args:
            tokens: (B, V, D) output of the tokenizer.
            center: (B, V, 3) centres of their groups.
            cls: class token to prepend.
            hidden: further tokens (B, H, D) and their positions (B, H, D) to append. They attend
                to all tokens; the class token and ``tokens`` do not attend to them, so their
                outputs are the same as without ``hidden``.
            noise: keyed noise for drop path; needed while training with ``drop_path`` > 0.
            layers: numbers, from 1, of the blocks whose outputs are also returned.

        Returns:
            features whose tokens are (B, V + H, D).
        """
        positions = self.positions(center)
        if cls is not None:
            batch = tokens.shape[0]
            tokens = torch.cat([cls.cls_token.expand(batch, -1, -1), tokens], dim=1)
            positions = torch.cat([cls.cls_pos.expand(batch, -1, -1), positions], dim=1)
        closed = 0
        if hidden is not None:
            closed = tokens.shape[1]
            tokens = torch.cat([tokens, hidden[0]], dim=1)
            positions = torch.cat([positions, hidden[1]], dim=1)
        keep = drop_path(self, self.section.drop_path, self.depth, noise)
        x, outputs = run_blocks(
            self.blocks, tokens, keep, layers, positions=positions, closed=closed
        )
        x = self.norm(x)
        count = 0 if cls is None else 1
        pools = POOLS if count else POOLS[1:]
        return Features(cls=x[:, :count], tokens=x[:, count:], layers=outputs, pools=pools)

    def encode(
        self,
        batch: Batch,
        *,
        noise: Noise | None = None,
        layers: Collection[int] = (),
        cls: ClassToken | None = None,
    ) -> Features:
        """Features of all groups of the view ``points``, as every probe reads them."""
        groups = self.group(batch.views["points"])
        tokens = self.tokenizer(groups.points)
        features: Features = self(tokens, groups.center, cls, noise=noise, layers=layers)
        return features

    def sample(self) -> tuple[str, tuple[int, ...]]:
        return "points", (self.section.points, 3)


def position_mlp(width: int) -> nn.Sequential:
    """Coordinates of centres -> positions."""
    return nn.Sequential(nn.Linear(3, 128), nn.GELU(), nn.Linear(128, width))


def code_mlp(width: int) -> nn.Sequential:
    """Sin-cos codes of centres -> positions."""
    return nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))


def point_blocks(width: int, depth: int, heads: int, mlp_ratio: float, eps: float) -> nn.ModuleList:
    """Pre-norm blocks without biases of queries, keys and values."""
    return nn.ModuleList(Block(width, heads, mlp_ratio, eps, qkv_bias=False) for _ in range(depth))


def _init_truncated(module: nn.Module) -> None:
    """Initialisation of the published encoder: normal with std 0.02 truncated at 2; biases 0."""
    if isinstance(module, nn.Linear | nn.Conv1d):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
