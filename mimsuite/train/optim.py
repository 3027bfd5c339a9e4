"""The optimizer of a method: parameter groups by weight decay and layer decay, fused AdamW."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from mimsuite.config.keys.shared import GroupSection, OptimSection, Recipe
from mimsuite.methods.base import Method
from mimsuite.schedule import beta_at, decay_at, rate_at
from mimsuite.train.lars import LARS

Group = dict[str, Any]


def param_groups(
    method: Method,
    weight_decay: float,
    layer_decay: float | None = None,
    decay_all: bool = False,
) -> list[Group]:
    """Trained parameters, in one group per distinct (named group, rate scale, weight decay).

    Decay is multiplied by ``method.decay_share``, but with ``decay_all``, and the rate by
    ``method.rate_scale``.
    With layer decay the rate of layer i of L is scaled by ``layer_decay ** (L - i)``, too
    (BEiT, arXiv:2106.08254; layer ids by ``method.layer_id``). Decay, and for its vectors too, may
    be that of a group that ``method.parameter_groups`` names.

    Returns:
        groups ``{params, names, lr_scale, weight_decay, decay_share, own}`` in the order the names
        appear; the last is the section of a named group, or ``None``.
    """
    named = method.parameter_groups()
    groups: dict[tuple[str, float, float], Group] = {}
    for name, parameter in method.named_parameters():
        if not parameter.requires_grad:
            continue
        scale = method.rate_scale(name)
        if layer_decay is not None:
            scale *= layer_decay ** (method.layer_count() - method.layer_id(name))
        group_name = max((p for p in named if name.startswith(p)), key=len, default="")
        own = named.get(group_name)
        decay, all_alike = weight_decay, decay_all
        if own is not None:
            decay, all_alike = _first(own.weight_decay, decay), decay_all or own.decay_all
        share = 1.0 if all_alike else method.decay_share(name, parameter)
        decay *= share
        empty: Group = {
            "params": [],
            "names": [],
            "lr_scale": scale,
            "weight_decay": decay,
            "decay_share": share,
            "own": own,
        }
        group = groups.setdefault((group_name, scale, decay), empty)
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def build_optimizer(method: Method, recipe: Recipe) -> Optimizer:
    """The recipe's optimizer over ``param_groups``; rates are set by :func:`set_schedules`."""
    optim: OptimSection = recipe.optim
    groups = param_groups(method, optim.weight_decay, optim.layer_decay, optim.decay_all)
    if optim.name == "adamw":
        # The fused kernel is several times faster than the default, even on a CPU.
        return AdamW(
            groups, lr=recipe.lr, betas=optim.betas, eps=optim.eps, fused=_can_fuse(method)
        )
    if optim.name == "lars":
        return LARS(groups, lr=recipe.lr, momentum=optim.momentum)
    return SGD(
        groups,
        lr=recipe.lr,
        momentum=optim.momentum,
        nesterov=optim.momentum > 0,
        fused=_can_fuse(method),
    )


def set_schedules(optimizer: Optimizer, recipe: Recipe, step: int, steps_per_epoch: int) -> None:
    """Set every group's scheduled rate, weight decay and first beta for the step after ``step``
    finished ones."""
    optim = recipe.optim
    for group in optimizer.param_groups:
        own: GroupSection | None = group["own"]
        schedule, lr = recipe.schedule, recipe.lr
        start, end = optim.weight_decay, optim.weight_decay_end
        if own is not None:
            given = {"min_lr": own.min_lr, "warmup_epochs": own.warmup_epochs}
            schedule = schedule.model_copy(
                update={key: value for key, value in given.items() if value is not None}
            )
            lr = _first(own.lr, lr)
            if own.weight_decay is not None:
                start, end = own.weight_decay, own.weight_decay_end
        group["lr"] = rate_at(schedule, lr, step, steps_per_epoch) * group["lr_scale"]
        decay = decay_at(schedule, start, end, step, steps_per_epoch)
        group["weight_decay"] = decay * group["decay_share"]
    set_beta(optimizer, beta_at(recipe.schedule, step, steps_per_epoch))


def set_lr(optimizer: Optimizer, lr: float) -> None:
    """Set every group's rate to ``lr`` times the group's scale."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


def set_beta(optimizer: Optimizer, beta: float | None) -> None:
    """Set every group's first beta; ``None`` does not change it."""
    if beta is not None:
        for group in optimizer.param_groups:
            group["betas"] = (beta, group["betas"][1])


def _first(given: float | None, otherwise: float) -> float:
    return otherwise if given is None else given


def _can_fuse(method: nn.Module) -> bool:
    return all(p.device.type in ("cpu", "cuda") for p in method.parameters())


def trained(optimizer: Optimizer) -> list[torch.Tensor]:
    """All parameters that the optimizer updates."""
    return [p for group in optimizer.param_groups for p in group["params"]]
