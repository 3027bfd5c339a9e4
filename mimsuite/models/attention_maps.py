"""Attention weights of an encoder's last block, computed by themselves.

Fused attention returns no weights. So its last call is noted, and the product of its very queries
and keys is made once more, with its scale and bias: the same for every kind of attention.

Letters: B batch, N tokens, h heads, d width of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


@dataclass(frozen=True)
class AttentionCall:
    """What a call of scaled-dot-product attention got.

    Attributes:
        query, key: (B, h, N, d).
        bias: what is added to the scores, broadcast to (B, h, N, N); ``None``: nothing.
        scale: of the scores; ``None``: ``1 / sqrt(d)``.
    """

    query: Tensor
    key: Tensor
    bias: Tensor | None
    scale: float | None

    def weights(self, first: int | None = None) -> Tensor:
        """(B, q, N) float32 attention of the ``first`` q queries, all where ``None``; the mean of
        the heads. Samples are taken one by one: of many tokens there are many weights."""
        rows = []
        for sample in range(len(self.query)):
            query, key = self.query[sample, :, :first].float(), self.key[sample].float()
            scale = query.shape[-1] ** -0.5 if self.scale is None else self.scale
            scores = query @ key.transpose(-1, -2) * scale  # (h, q, N)
            if self.bias is not None:
                shape = (*self.query.shape[:3], self.key.shape[2])
                scores = scores + self.bias.expand(shape)[sample, :, :first].float()
            rows.append(scores.softmax(dim=-1).mean(dim=0))
        return torch.stack(rows)


class LastAttention(TorchFunctionMode):
    """A context in which the last call of fused attention is noted as ``call``.

    Example:
        >>> with LastAttention() as seen:
        ...     features = method.encode(batch)
        >>> seen.call.weights(first=1)  # of the class token
    """

    def __init__(self) -> None:
        super().__init__()
        self.call: AttentionCall | None = None

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        if func is F.scaled_dot_product_attention:
            query, key = args[0], args[1]
            bias = args[3] if len(args) > 3 else given.get("attn_mask")
            self.call = AttentionCall(query, key, bias, given.get("scale"))
        return func(*args, **given)
