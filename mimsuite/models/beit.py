"""BEiT's vision transformer (Bao et al., arXiv:2106.08254), as used by CAE (arXiv:2202.03026).

``x += g1 * Attn(LN x); x += g2 * MLP(LN x)``: keys have no bias, ``g1`` and ``g2`` are trained
per-channel scales. Positions are fixed sin-cos codes, row first. In fine-tuning each block's
attention has a trained bias for every offset between two patches, initialised to zero.

Letters: B batch, N tokens, h heads, d width of a head, D width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import Tensor, nn

from mimsuite.config.keys.encoders import BEiTSection
from mimsuite.models.beit_block import BEiTBlock
from mimsuite.models.vit import ViT
from mimsuite.weights.names import Names


class BEiT(ViT):
    """Encoder of visible patches, with one class token and fixed, row-first positions."""

    section: BEiTSection
    row_first = True
    published = Names(
        [
            ("pooler.query", "query_token"),
            ("pooler.standardise.running_mean", "fc_norm.running_mean"),
            ("pooler.standardise.running_var", "fc_norm.running_var"),
            ("pooler.standardise.num_batches_tracked", "fc_norm.num_batches_tracked"),
            ("pooler.", "attentive_blocks.0."),
            *ViT.published.pairs,
        ]
    )
    published_mark: ClassVar[str] = "attentive_blocks."  # all other names are the plain ViT's

    def __init__(self, section: BEiTSection) -> None:
        super().__init__(section)
        init_tokens(self.cls_token, self.patch_embed.proj.weight)

    def block(self) -> nn.Module:
        section = self.section
        return BEiTBlock(
            section.width,
            section.heads,
            section.mlp_ratio,
            section.norm_eps,
            section.layer_scale,
            section.grid if section.relative_positions else None,
        )


def init_tokens(*tensors: Tensor) -> None:
    """CAE's initialisation of tokens and patch embedding: normal, std 0.02, truncated at 0.02."""
    for tensor in tensors:
        nn.init.trunc_normal_(tensor, std=0.02, a=-0.02, b=0.02)


@torch.no_grad()
def init_beit(model: nn.Module, stacks: Iterable[nn.ModuleList]) -> None:
    """BEiT's initialisation (arXiv:2106.08254).

    Linear weights are initialised by :func:`init_tokens`, biases to 0. In the i-th block of a
    stack, the last linear layer of each residual branch is divided by sqrt(2 i).
    """
    for part in model.modules():
        if isinstance(part, nn.Linear):
            init_tokens(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    for stack in stacks:
        for name, part in stack.named_modules():
            if isinstance(part, nn.Linear) and name.endswith(("attn.proj", ".fc2")):
                part.weight /= math.sqrt(2 * (int(name.split(".")[0]) + 1))
