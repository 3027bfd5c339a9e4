"""Attentive pooling: one learnt query reads the tokens of a (mostly frozen) encoder.

Three published forms, selected by ``kind`` of their section:

* ``batch-norm``: CAE (Chen et al., arXiv:2202.03026, section 4.1)
* ``query``: CAPI (Darcet et al., arXiv:2502.08769)
* ``blocks``: V-JEPA (arXiv:2404.08471) with depth 1, V-JEPA 2 (arXiv:2506.09985) with depth 4

Letters: B batch, C class tokens or registers, N tokens, D width, h heads.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from timm.layers import Mlp
from torch import Tensor, nn

from mimsuite.config.keys.poolers import BlockPoolerSection, QueryPoolerSection
from mimsuite.config.keys.section import Section
from mimsuite.models import cae
from mimsuite.models.blocks import Block, CrossAttention, init_normal, run_blocks, scale_outputs
from mimsuite.models.features import Features
from mimsuite.weights.names import Names

_BN_EPS = 1e-5  # epsilon of the published head's batch norm


class NormPooler(nn.Module):
    """Cross-attention of one query to all tokens, class tokens included; then a batch norm.

    There is no residual and no MLP; the batch norm has no affine parameters. The published
    evaluation runs the model in training mode, so test features are standardised by statistics of
    the test batch. Here they are standardised by the running statistics of training.
    """

    def __init__(self, width: int, heads: int, eps: float) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(1, 1, width))
        self.norm1_q = nn.LayerNorm(width, eps=eps)
        self.norm1_k = nn.LayerNorm(width, eps=eps)
        self.norm1_v = nn.LayerNorm(width, eps=eps)
        self.cross_attn = cae.CrossAttention(width, heads)
        self.standardise = nn.BatchNorm1d(width, affine=False, eps=_BN_EPS)
        for module in self.cross_attn.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(self.cross_attn.proj.bias)

    def forward(self, features: Features) -> Tensor:
        """(B, C, D) and (B, N, D) -> (B, D), standardised."""
        tokens = torch.cat([features.cls, features.tokens], dim=1)
        query = self.norm1_q(self.query).expand(len(tokens), -1, -1)
        pooled = self.cross_attn(query, self.norm1_k(tokens), self.norm1_v(tokens))
        standardised: Tensor = self.standardise(pooled[:, 0])
        return standardised


class QueryPooler(nn.Module):
    """Attention of one query to the patch tokens; the query is not projected, nothing is normed."""

    published: ClassVar = Names([("head.", "linear."), ("pooler.", "")])  # names in published heads
    unread: ClassVar[tuple[str, ...]] = ()

    def __init__(self, width: int, section: QueryPoolerSection) -> None:
        super().__init__()
        self.head_width = section.head_width
        self.query_token = nn.Parameter(torch.empty(width).normal_(std=0.02))
        self.kv = nn.Linear(width, 2 * width)
        init_normal(self.kv)

    def forward(self, features: Features) -> Tensor:
        """(B, N, D) -> (B, D)."""
        tokens = features.tokens
        query = self.query_token.view(1, -1, 1, self.head_width)  # (1, h, 1, d)
        kv = self.kv(tokens).unflatten(2, (2, -1, self.head_width))  # (B, N, 2, h, d)
        k, v = (part.transpose(1, 2) for part in kv.unbind(2))
        out = F.scaled_dot_product_attention(query.expand(len(tokens), -1, -1, -1), k, v)
        return out.flatten(1)  # one query: (B, h, 1, d) -> (B, D)


class QueryBlock(nn.Module):
    """Queries read tokens: cross-attention without output layer, then an MLP, both residual."""

    def __init__(self, width: int, section: BlockPoolerSection) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=section.norm_eps)
        self.xattn = CrossAttention(width, width, section.heads, project=False)
        self.norm2 = nn.LayerNorm(width, eps=section.norm_eps)
        hidden = int(width * section.mlp_ratio)
        self.mlp = Mlp(width, hidden_features=hidden, act_layer=nn.GELU)

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """(B, Q, D) queries, (B, N, D) tokens -> (B, Q, D)."""
        queries = queries + self.xattn(queries, self.norm1(tokens))
        mixed: Tensor = queries + self.mlp(self.norm2(queries))
        return mixed


class BlockPooler(nn.Module):
    """Self-attention blocks over all tokens, then one query that reads them."""

    published: ClassVar = Names([("head.", "linear.")])  # names in published heads
    # The first release stores an output layer that its code never uses.
    unread: ClassVar[tuple[str, ...]] = ("pooler.cross_attention_block.xattn.proj.",)

    def __init__(self, width: int, section: BlockPoolerSection) -> None:
        super().__init__()
        self.query_tokens = nn.Parameter(torch.empty(1, 1, width).normal_(std=0.02))
        self.blocks = nn.ModuleList(
            Block(width, section.heads, section.mlp_ratio, section.norm_eps)
            for _ in range(section.depth - 1)
        )
        self.cross_attention_block = QueryBlock(width, section)
        self.apply(init_normal)
        scale_outputs(self.blocks)
        with torch.no_grad():
            scale = math.sqrt(2 * max(1, len(self.blocks)))
            self.cross_attention_block.mlp.fc2.weight.div_(scale)

    def forward(self, features: Features) -> Tensor:
        """(B, C, D) and (B, N, D) -> (B, D)."""
        tokens, _ = run_blocks(self.blocks, torch.cat([features.cls, features.tokens], dim=1))
        queries = self.query_tokens.expand(len(tokens), -1, -1)
        pooled: Tensor = self.cross_attention_block(queries, tokens)
        return pooled[:, 0]


Pooler = NormPooler | QueryPooler | BlockPooler


def build_pooler(section: Section, width: int, heads: int, eps: float) -> Pooler:
    """The pooling that a recipe's ``model.pooler`` describes.

    Args:
        width, heads, eps: of the encoder.
    """
    if isinstance(section, QueryPoolerSection):
        return QueryPooler(width, section)
    if isinstance(section, BlockPoolerSection):
        return BlockPooler(width, section)
    return NormPooler(width, heads, eps)
