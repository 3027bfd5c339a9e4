"""Dynamic alignment of a student's blocks with a teacher's (MaskAlign, arXiv:2211.08887, sec. 3.2).

Letters: B batch, V tokens, D width of the student, E width of the teacher, T levels of the teacher,
S blocks of the student.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mimsuite.models.blocks import init_linear

_EPS = 1e-6  # epsilon of the heads' norms, the same as in the student's blocks


class Alignment(nn.Module):
    """Mixes the outputs of the student's blocks, then maps each mixture to a teacher's level.

    Every level has a row of weights and a head. Heads of unused levels are frozen, so that the same
    parameters are trained in every step.

    Args:
        fusion: ``linear``: T x S weights, initialised to the identity plus 0.01, for equal depths;
            ``sum``: T x S weights, initialised to 1 / S; ``none``: no mixing, levels are paired
            with blocks counted from the last.
        head: ``linear``, ``norm-linear`` (layer norm, linear), ``mlp`` (linear, GELU, linear) or
            ``mlp2`` (linear, layer norm, linear).
        student, teacher: number of blocks or levels, and width.
        levels: numbers of the used levels, from 1.
    """

    def __init__(
        self,
        fusion: str,
        head: str,
        student: tuple[int, int],
        teacher: tuple[int, int],
        levels: Sequence[int],
    ) -> None:
        super().__init__()
        (self.depth, width), (count, out) = student, teacher
        self.levels, self.count = tuple(levels), count
        self.weights: nn.Parameter | None = None
        if fusion == "linear":
            self.weights = nn.Parameter(torch.eye(count) + 0.01)
        elif fusion == "sum":
            self.weights = nn.Parameter(torch.full((count, self.depth), 1 / self.depth))
        self.heads = nn.ModuleList(_head(head, width, out) for _ in range(count))
        self.heads.apply(init_linear)
        for number, module in enumerate(self.heads, start=1):
            module.requires_grad_(number in self.levels)

    def blocks(self) -> list[int]:
        """Numbers, from 1, of the student's blocks whose outputs are needed."""
        if self.weights is not None:
            return list(range(1, self.depth + 1))
        return [self._partner(level) for level in self.levels]

    def forward(self, outputs: Mapping[int, Tensor]) -> list[Tensor]:
        """Outputs (B, V, D) of :meth:`blocks` by number -> (B, V, E) for each used level."""
        if self.weights is None:
            mixed = [outputs[self._partner(level)] for level in self.levels]
        else:
            rows = torch.stack([self.weights[level - 1] for level in self.levels])  # (levels, S)
            stacked = torch.stack([outputs[n] for n in self.blocks()])  # (S, B, V, D)
            mixed = list((rows @ stacked.flatten(1)).unflatten(1, stacked.shape[1:]))
        return [
            self.heads[level - 1](tokens) for level, tokens in zip(self.levels, mixed, strict=True)
        ]

    def _partner(self, level: int) -> int:
        """The block as far from the student's last as the level is from the teacher's."""
        return self.depth - (self.count - level)


def _head(kind: str, width: int, out: int) -> nn.Module:
    if kind == "linear":
        return nn.Linear(width, out)
    if kind == "norm-linear":
        return nn.Sequential(nn.LayerNorm(width, eps=_EPS), nn.Linear(width, out))
    between = nn.GELU() if kind == "mlp" else nn.LayerNorm(width, eps=_EPS)
    return nn.Sequential(nn.Linear(width, width), between, nn.Linear(width, out))
