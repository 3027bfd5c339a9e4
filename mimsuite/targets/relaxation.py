"""Trainable codes: relaxed sampling, and a penalty that keeps all codes in use.

Letters: B batch, h x w codes, K codes of the vocabulary.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def relaxed(scores: Tensor, noise: Tensor, temperature: float) -> Tensor:
    """A differentiable sample from the distribution given by scores.

    The Gumbel-softmax of Jang et al. (arXiv:1611.01144, equation 2): ``softmax((scores + g) / t)``
    with ``g = -log(-log(u))``. Its largest entry is an exact sample; as ``t`` goes to 0 the weights
    become one-hot.

    Args:
        scores: (..., K) unnormalised log probabilities.
        noise: (..., K) uniform in the open interval (0, 1).

    Returns:
        (..., K) float32 weights of sum 1.
    """
    gumbel = -torch.log(-torch.log(noise.float()))
    return torch.softmax((scores.float() + gumbel) / temperature, dim=-1)


def kl_to_uniform(scores: Tensor) -> Tensor:
    """(...) KL divergence in nats of ``softmax(scores)`` (..., K) from the uniform distribution."""
    logs = torch.log_softmax(scores.float(), dim=-1)
    return (logs.exp() * logs).sum(-1) + math.log(scores.shape[-1])


def perplexity(scores: Tensor) -> Tensor:
    """0-d effective number of codes of a batch (..., K): 1 = one code only, K = all equally."""
    mean = torch.softmax(scores.float(), dim=-1).flatten(0, -2).mean(0)
    return torch.special.entr(mean).sum().exp()


def eased(step: int, steps: int, first: float, last: float) -> float:
    """Half-cosine schedule from ``first`` at step 0 to ``last`` at ``steps`` and after."""
    done = min(1.0, step / steps) if steps else 1.0
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * done))
