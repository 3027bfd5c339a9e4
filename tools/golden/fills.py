"""Weights and inputs by rule, for cases too large to store theirs (README, "Fill rules")."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from golden.case import CaseFault


def fill(rule: str, shapes: dict[str, torch.Size]) -> dict[str, Tensor]:
    """A state dict whose numbers follow from the rank of each key and the position in it."""
    if rule not in ("rule1", "rule2"):
        raise CaseFault(f"fill: '{rule}' is not rule1 or rule2")
    make = _rule1 if rule == "rule1" else _rule2
    return {name: make(rank, name, shapes[name]) for rank, name in enumerate(sorted(shapes))}


def _rule1(rank: int, name: str, shape: torch.Size) -> Tensor:
    value = 0.02 * torch.sin(0.1 * _counter(shape) + rank)
    owner, _, leaf = name.rpartition(".")
    value = value.float().reshape(shape)
    return value + 1 if leaf == "weight" and "norm" in owner.rpartition(".")[2] else value


def _rule2(rank: int, name: str, shape: torch.Size) -> Tensor:
    scale = 1 / math.sqrt(math.prod(shape[1:])) if len(shape) > 1 else 0.1
    return (scale * torch.sin(1.7 * _counter(shape) + rank)).float().reshape(shape)


def det_images(count: int, size: int) -> Tensor:
    """(count, 3, size, size) float32."""
    return torch.sin(0.01 * _counter((count, 3, size, size))).float().reshape(count, 3, size, size)


def det_noise(count: int, tokens: int) -> Tensor:
    """(count, tokens) float32 in [0, 1)."""
    return torch.frac(_counter((count, tokens)) * 0.6180339887498949).float().reshape(count, tokens)


def _counter(shape: tuple[int, ...]) -> Tensor:
    return torch.arange(math.prod(shape), dtype=torch.float64)
