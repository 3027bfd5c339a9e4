"""Attention weights of an encoder's last block, computed separately.

Fused attention returns no weights. So its last call is recorded, and the weights are computed again
from its queries, keys, scale and bias. This works for every kind of attention.

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
    """Arguments of a call of scaled-dot-product attention.

    Attributes:
        query, key: (B, h, N, d).
        bias: added to the scores, broadcastable to (B, h, N, N), or ``None``.
        scale: factor of the scores; ``None``: ``1 / sqrt(d)``.
    """

    query: Tensor
    key: Tensor
    bias: Tensor | None
    scale: float | None

    def weights(self, first: int | None = None) -> Tensor:
        """(B, q, N) float32 attention of the ``first`` q queries (``None``: all), mean over heads.

        Computed sample by sample to save memory.
        """
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
    """A context that records the last call of fused attention as ``call``.

    Example:
        >>> with LastAttention() as seen:
        ...     features = method.encode(batch)
        >>> seen.call.weights(first=1)  # attention of the class token
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
        options = dict(kwargs or {})
        if func is F.scaled_dot_product_attention:
            query, key = args[0], args[1]
            bias = args[3] if len(args) > 3 else options.get("attn_mask")
            self.call = AttentionCall(query, key, bias, options.get("scale"))
        return func(*args, **options)
