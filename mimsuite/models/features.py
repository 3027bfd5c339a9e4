"""The output of an encoder, and its pooling for probes."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Features:
    """Output of an encoder.

    Attributes:
        cls: (B, C, D) class tokens, C >= 0.
        tokens: (B, N, D) all other tokens, in the order of the input.
        layers: block number (from 1) -> (B, C + N, D) output of that block, for the requested
            blocks; 0 -> input of the first block.
        maps: ((B, n, d) tokens, grid) of each stage of a hierarchical encoder.
        qkv: block number -> queries, keys and values (B, h, C + N, d), for the requested blocks.
        pools: suitable arguments of :meth:`pool`, the best first.
    """

    cls: Tensor
    tokens: Tensor
    layers: dict[int, Tensor] = field(default_factory=dict)
    maps: list[tuple[Tensor, tuple[int, ...]]] = field(default_factory=list)
    qkv: dict[int, tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict)
    pools: tuple[str, ...] = ("cls", "mean")

    def pool(self, kind: str) -> Tensor:
        """Pool the tokens of each sample.

        (B, D) for ``cls`` (mean of the class tokens), ``mean`` or ``max`` (over all tokens except
        class tokens) and ``mean_all`` (over class tokens too). (B, 2 D) for ``cls_mean``,
        ``cls_max`` and ``mean_max``: two of these concatenated.

        Raises:
            ValueError: an unknown kind, or no class token.
        """
        if kind == "mean":
            return self.tokens.mean(dim=1)
        if kind == "mean_all":
            return torch.cat([self.cls, self.tokens], dim=1).mean(dim=1)
        if kind == "max":
            return self.tokens.amax(dim=1)
        if kind == "mean_max":
            return torch.cat([self.tokens.mean(dim=1), self.tokens.amax(dim=1)], dim=1)
        if kind not in ("cls", "cls_mean", "cls_max"):
            raise ValueError(
                f"unknown pooling '{kind}': cls, mean, max, cls_mean, cls_max or mean_max"
            )
        if self.cls.shape[1] == 0:
            raise ValueError(f"this encoder has no class token: use pool '{self.pools[-1]}'")
        cls = self.cls.mean(dim=1)
        if kind == "cls":
            return cls
        other = self.tokens.mean(dim=1) if kind == "cls_mean" else self.tokens.amax(dim=1)
        return torch.cat([cls, other], dim=1)
