"""The mean squared error of a dictionary, and the penalties added to it.

Penalties are averaged over rows, whereas published code sums over the batch: its weight of ``l1``
is ours divided by the batch size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mimsuite.dictionaries.base import Coded, Dictionary
from mimsuite.dictionaries.figures import hoyer, kappa
from mimsuite.dictionaries.jumprelu import JumpReLUDictionary
from mimsuite.dictionaries.topk import largest

_RARE, _MANY = 1e-2, 10  # revive: largest value of a rare code, and how many it takes at least


def squared_error(x: Tensor, coded: Coded) -> Tensor:
    """Mean over all B * D entries."""
    return (x - coded.output).square().mean()


def penalty(
    section: Any, dictionary: Dictionary, x: Tensor, coded: Coded, idle: Tensor | None = None
) -> Tensor:
    """The weighted penalty.

    Args:
        section: a ``PenaltySection``.
        idle: (C,) bool, codes unused for long; needed by kind ``dead``.
    """
    kind, weight, z = section.kind, section.weight, coded.codes
    if kind == "none" or not weight:
        return x.new_zeros(())
    if kind == "elastic":  # weight is the share of the atoms
        return (1 - weight) * z.abs().mean() + weight * coded.atoms.square().mean()
    if kind == "revive":
        return -weight * revived(coded)
    if kind == "reanimate-mean":
        dead = ~(z > 0).any(dim=0)
        return -weight * (coded.before * dead).mean()
    if kind == "l0":
        assert isinstance(dictionary, JumpReLUDictionary)
        return weight * dictionary.active(coded.before).sum(dim=1).mean()
    if kind == "dead":
        return weight * explained_by_dead(x, coded, idle, section.dead_codes)
    if kind == "reanimate":
        return -weight * reanimated(coded)
    term = {
        "l1": lambda: z.abs().sum(dim=1).mean(),
        # Both are largest (1) for rows with one code: a positive weight favours more codes.
        "hoyer": lambda: hoyer(z).mean(),
        "kappa": lambda: kappa(z).mean(),
        "unchosen": lambda: explained_by_unchosen(x, coded),
    }[kind]()
    return weight * term


def explained_by_unchosen(x: Tensor, coded: Coded) -> Tensor:
    """Squared error of the error as reconstructed from the largest half of the unchosen codes."""
    unchosen = coded.before.relu() - coded.codes
    second = largest(unchosen, unchosen.shape[1] // 2)
    return (x - coded.output - second @ coded.atoms).square().mean()


def explained_by_dead(x: Tensor, coded: Coded, idle: Tensor | None, count: int) -> Tensor:
    """Squared error of the detached error as reconstructed from dead codes (arXiv:2406.04093).

    The ``count`` largest dead codes of each row are used, and the squared error is divided by the
    error's variance. It is 0 where no code is dead.
    """
    if idle is None or not idle.any():
        return x.new_zeros(())
    places = idle.nonzero()[:, 0]
    codes = largest(coded.before[:, places].relu(), count)
    error = (x - coded.output).detach()
    left = (error - codes @ coded.atoms[places]).square().mean()
    return left / error.var(correction=0).clamp(min=1e-12)


def reanimated(coded: Coded) -> Tensor:
    """Sum over rows of the pre-codes of codes that sum to 0 in the batch, per such code."""
    dead = coded.codes.sum(dim=0) == 0
    return (coded.before * dead).sum() / (dead.sum() + 1e-6)


def revived(coded: Coded) -> Tensor:
    """Mean product of the residual (B, D) with atoms that the batch rarely uses; 0 if these are
    few."""
    rare = coded.codes.amax(dim=0) < _RARE
    if rare.sum() <= _MANY:
        return coded.codes.new_zeros(())
    return (coded.before @ coded.atoms[rare].T).mean()


@torch.no_grad()
def is_used(codes: Tensor) -> Tensor:
    """(C,) whether any row of (B, C) has a positive code."""
    return (codes > 0).any(dim=0)
