"""From a method and its recipe to an optimizer: weight-decay split, layer decay, fused AdamW."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from mimsuite.config.keys.shared import OptimSection, Recipe
from mimsuite.methods.base import Method
from mimsuite.train.lars import LARS

Group = dict[str, Any]


def param_groups(
    method: Method, weight_decay: float, layer_decay: float | None = None
) -> list[Group]:
    """Trained parameters, one group per distinct (scales of the rate, weight decay).

    No decay for 1-D parameters, for biases, and for what ``method.no_weight_decay()`` names, but
    for those of ``method.always_decayed()``. The peak of the schedule is that of the recipe times
    ``method.peak_scale(name)``. With layer decay the rate of layer i of L is scaled by
    ``layer_decay ** (L - i)`` (BEiT, arXiv:2106.08254; layer ids by ``method.layer_id``).

    Returns:
        groups ``{params, names, lr_scale, peak_scale, weight_decay}`` as their names appear.
    """
    spared, decayed = method.no_weight_decay(), method.always_decayed()
    groups: dict[tuple[float, float, float], Group] = {}
    for name, parameter in method.named_parameters():
        if not parameter.requires_grad:
            continue
        scale = 1.0
        if layer_decay is not None:
            scale = layer_decay ** (method.layer_count() - method.layer_id(name))
        decays = parameter.ndim > 1 and not name.endswith(".bias") and name not in spared
        decay = weight_decay if decays or name in decayed else 0.0
        peak = method.peak_scale(name)
        scales = {"lr_scale": scale, "peak_scale": peak}
        empty: Group = {"params": [], "names": [], **scales, "weight_decay": decay}
        group = groups.setdefault((scale, peak, decay), empty)
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def build_optimizer(method: Method, recipe: Recipe) -> Optimizer:
    """The recipe's optimizer over ``param_groups``; rates are set by :func:`set_lr`."""
    optim: OptimSection = recipe.optim
    groups = param_groups(method, optim.weight_decay, optim.layer_decay)
    if optim.name == "adamw":
        # The fused kernel is several times faster than the default, on a CPU too.
        return AdamW(
            groups, lr=recipe.lr, betas=optim.betas, eps=optim.eps, fused=_can_fuse(method)
        )
    if optim.name == "lars":
        return LARS(groups, lr=recipe.lr, momentum=optim.momentum)
    return SGD(groups, lr=recipe.lr, momentum=optim.momentum, nesterov=optim.momentum > 0)


def set_lr(optimizer: Optimizer, lr_at: Callable[[float], float]) -> None:
    """Set every group's rate: ``lr_at(scale of its peak)`` times the group's scale.

    The two differ where a schedule begins or ends at a rate of its own: a group with a higher peak
    still ends there.
    """
    for group in optimizer.param_groups:
        group["lr"] = lr_at(group["peak_scale"]) * group["lr_scale"]


def set_beta(optimizer: Optimizer, beta: float | None) -> None:
    """Set every group's first beta; ``None`` leaves it as it is."""
    if beta is not None:
        for group in optimizer.param_groups:
            group["betas"] = (beta, group["betas"][1])


def _can_fuse(method: nn.Module) -> bool:
    return all(p.device.type in ("cpu", "cuda") for p in method.parameters())


def trained(optimizer: Optimizer) -> list[torch.Tensor]:
    """All parameters that the optimizer updates."""
    return [p for group in optimizer.param_groups for p in group["params"]]
