"""Codes that can be trained: the relaxed draw of a code, and what holds all codes in use.

Letters: B batch, h x w codes, K codes of the vocabulary.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def relaxed(scores: Tensor, noise: Tensor, temperature: float) -> Tensor:
    """A draw from the distribution that scores describe, softened so that it has a gradient.

    The Gumbel-softmax of Jang et al. (arXiv:1611.01144, equation 2): ``softmax((scores + g) / t)``
    with ``g = -log(-log(u))``; its largest entry is an exact draw, and with ``t`` towards 0 it is
    the only one.

    Args:
        scores: (..., K) unnormalised log probabilities.
        noise: likewise, uniform in the open interval (0, 1).

    Returns:
        (..., K) float32 weights of sum 1.
    """
    gumbel = -torch.log(-torch.log(noise.float()))
    return torch.softmax((scores.float() + gumbel) / temperature, dim=-1)


def kl_to_uniform(scores: Tensor) -> Tensor:
    """Divergence of what scores (..., K) describe from equal chances, (...), in nats; float32."""
    logs = torch.log_softmax(scores.float(), dim=-1)
    return (logs.exp() * logs).sum(-1) + math.log(scores.shape[-1])


def perplexity(scores: Tensor) -> Tensor:
    """How many codes a batch (..., K) uses, 0-d: 1 = always the same one, K = all alike often."""
    mean = torch.softmax(scores.float(), dim=-1).flatten(0, -2).mean(0)
    return torch.special.entr(mean).sum().exp()


def eased(step: int, steps: int, first: float, last: float) -> float:
    """From ``first`` at step 0 to ``last`` at ``steps`` by half a cosine, and ``last`` from then
    on."""
    done = min(1.0, step / steps) if steps else 1.0
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * done))
