"""What is done to the blocks of a model, whatever model it is: recomputed, compiled, put in shards.

The blocks are the members of every ``nn.ModuleList`` that an owner calls ``blocks``.
"""

from __future__ import annotations

import os
import shutil
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mimsuite.config.keys.shared import TrainSection
from mimsuite.errors import UserError


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """All blocks, outer ones before those that they contain."""
    return [
        block
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and name.rpartition(".")[2] == "blocks"
        for block in module
    ]


def prepare_blocks(model: nn.Module, section: TrainSection, device: torch.device) -> None:
    """Recompute and compile blocks as the recipe wants; names of parameters stay as they are.

    Raises:
        UserError: the model has no blocks, or there is no compiler here.
    """
    blocks = blocks_of(model)
    for key in ("checkpoint_activations", "compile"):
        if getattr(section, key) and not blocks:
            raise UserError(f"train.{key}: this model has no blocks; leave it out")
    if section.checkpoint_activations:
        for block in blocks:
            # Their tensors are made anew in backward; no draw from a generator may differ then.
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)  # type: ignore[method-assign]
    if section.compile:
        _require_compiler(device)
        for block in blocks:
            block.compile()


def _require_compiler(device: torch.device) -> None:
    """Refuse in one line what would end in a page of compiler output."""
    wanted = os.environ.get("CXX") or "g++"
    if shutil.which(wanted) is None and shutil.which("clang++") is None:
        raise UserError(
            f"train.compile=true needs a C++ compiler, and there is no {wanted}: install one, or "
            f"use train.compile=false"
        )
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"train.compile=true works on cpu and cuda, not on {device.type}")
