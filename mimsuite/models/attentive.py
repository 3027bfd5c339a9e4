"""CAE's attentive pooling (Chen et al., arXiv:2202.03026, section 4.1): one learnt query.

The published evaluation of this probe runs the model in training mode, so test features are
standardised by statistics of the test batch. Here they are standardised by the running statistics
of training.

Letters: B batch, C class tokens, N tokens, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mimsuite.models.cae import CrossAttention
from mimsuite.models.features import Features

_BN_EPS = 1e-5  # epsilon of the published head's batch norm


class AttentivePooler(nn.Module):
    """Cross-attention of one query to all tokens, class tokens included; then a batch norm.

    There is no residual and no MLP; the batch norm has no affine parameters.
    """

    def __init__(self, width: int, heads: int, eps: float) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(1, 1, width))
        self.norm1_q = nn.LayerNorm(width, eps=eps)
        self.norm1_k = nn.LayerNorm(width, eps=eps)
        self.norm1_v = nn.LayerNorm(width, eps=eps)
        self.cross_attn = CrossAttention(width, heads)
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
