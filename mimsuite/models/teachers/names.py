"""Translation of other libraries' tensor names to those of :class:`FrozenViT`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Rule = tuple[str, str]

_PARTS = ("q", "k", "v")


def renamed(state: Mapping[str, Tensor], rules: Sequence[Rule]) -> dict[str, Tensor]:
    """Rename each tensor by the first rule (pattern of the whole name, replacement) that matches.

    Tensors without a matching rule are left out. ``...attn.q.weight``, ``k`` and ``v`` are joined
    into ``...attn.qkv.weight``.
    """
    compiled = [(re.compile(pattern), target) for pattern, target in rules]
    result: dict[str, Tensor] = {}
    for name, tensor in state.items():
        for pattern, target in compiled:
            match = pattern.fullmatch(name)
            if match:
                result[match.expand(target)] = tensor
                break
    return _joined(result)


def without_rule(state: Mapping[str, Tensor], rules: Sequence[Rule]) -> list[str]:
    """The names that :func:`renamed` leaves out."""
    patterns = [re.compile(pattern) for pattern, _ in rules]
    return [name for name in state if not any(p.fullmatch(name) for p in patterns)]


def _joined(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Join separate projections of queries, keys and values into one layer."""
    for name in [name for name in state if re.search(r"\.attn\.q\.\w+$", name)]:
        lead, _, kind = name.rpartition(".attn.q.")
        parts = [f"{lead}.attn.{part}.{kind}" for part in _PARTS]
        if all(part in state for part in parts):
            state[f"{lead}.attn.qkv.{kind}"] = torch.cat([state.pop(part) for part in parts])
    return state
