"""A codebook whose codes all move together: fixed points through one trained linear map (SimVQ,
Zhu et al., arXiv:2411.02038).

In a plain codebook only the codes that are chosen learn, and the others die. Here a step moves
every code, so none has to be replaced.

Letters: N vectors, D their width, K codes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimsuite.config.keys.rae import CodebookSection
from mimsuite.targets.kmeans import fit, nearest


class Quantized(NamedTuple):
    """Vectors of the nearest codes.

    Attributes:
        vectors: (..., D) float32; the gradient goes to the input as if nothing was quantised.
        codes: (...) int64.
        loss: squared distances of codes and vectors, 0-d.
    """

    vectors: Tensor
    codes: Tensor
    loss: Tensor


class Codebook(nn.Module):
    """K codes of width D; distances are Euclidean, in float32."""

    points: Tensor
    fitted: Tensor

    def __init__(self, section: CodebookSection, width: int) -> None:
        super().__init__()
        self.section = section
        points = torch.randn(section.codes, width) * width**-0.5
        self.register_buffer("points", points)
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))
        self.map = nn.Linear(width, width)
        if section.start == "kmeans":
            nn.init.eye_(self.map.weight)
            nn.init.zeros_(self.map.bias)

    def table(self) -> Tensor:
        """(K, D) the codes as they are now."""
        codes: Tensor = self.map(self.points)
        return codes

    def forward(self, vectors: Tensor) -> Quantized:
        """Replace each of (..., D) vectors by its nearest code."""
        with torch.autocast(vectors.device.type, enabled=False):
            vectors, table = vectors.float(), self.table()
            flat = vectors.detach().flatten(0, -2)
            codes = nearest(flat, table.detach()).view(vectors.shape[:-1])
            chosen = F.embedding(codes, table)  # (..., D)
            own = F.mse_loss(chosen, vectors.detach())
            loss = own + self.section.commitment * F.mse_loss(vectors, chosen.detach())
            return Quantized(vectors + (chosen - vectors).detach(), codes, loss)

    def start(self, vectors: Tensor, seed: int) -> None:
        """Put the fixed points at the k-means centres of vectors (S, D), S at least K."""
        self.points.copy_(fit(vectors, self.section.codes, self.section.iterations, seed))
        self.fitted.fill_(True)


def use_of(codes: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Share of a vocabulary that codes (N,) use at least once, and their perplexity: the number of
    codes that, used equally, would have their entropy."""
    flat = codes.flatten()
    counts = torch.zeros(size, device=codes.device).index_add_(
        0, flat, torch.ones(len(flat), device=codes.device)
    )
    share = counts / len(flat)
    entropy = -(share * (share + 1e-10).log()).sum()
    return (counts > 0).float().mean(), entropy.exp()
