"""What an encoder returns, and how probes pool it."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Features:
    """Output of an encoder.

    Attributes:
        cls: (B, C, D) class tokens, C >= 0.
        tokens: (B, N, D) the other tokens, in the order they were given.
        layers: block number (from 1) -> (B, C + N, D) output of that block, where asked for.
        maps: of hierarchical encoders, one ((B, n, d) tokens, grid) per stage.
    """

    cls: Tensor
    tokens: Tensor
    layers: dict[int, Tensor] = field(default_factory=dict)
    maps: list[tuple[Tensor, tuple[int, ...]]] = field(default_factory=list)

    def pool(self, kind: str) -> Tensor:
        """(B, D): ``cls`` (first class token) or ``mean`` (of all tokens but class tokens)."""
        if kind == "mean":
            return self.tokens.mean(dim=1)
        if kind == "cls":
            if self.cls.shape[1] == 0:
                raise ValueError("this encoder has no class token: use pool 'mean'")
            return self.cls[:, 0]
        raise ValueError(f"unknown pooling '{kind}': cls or mean")
