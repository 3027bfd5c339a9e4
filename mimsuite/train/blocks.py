"""The blocks of any model, as the units of recomputation, compilation and sharding.

Blocks are the members of every ``nn.ModuleList`` in an attribute named ``blocks``.
"""

from __future__ import annotations

import os
import shutil
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mimsuite.config.keys.shared import TrainSection
from mimsuite.errors import UserError
from mimsuite.models.attend import attending_again

_GRAPHS = 64  # compiled forms of a function at most; then torch would run it as written


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """All blocks, parents before children."""
    return [
        block
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and name.rpartition(".")[2] == "blocks"
        for block in module
    ]


def prepare_blocks(model: nn.Module, section: TrainSection, device: torch.device) -> None:
    """Apply recomputation and compilation as the recipe asks; parameter names do not change.

    Raises:
        UserError: the model has no blocks, or no compiler is installed.
    """
    blocks = blocks_of(model)
    for key in ("checkpoint_activations", "compile"):
        if getattr(section, key) and not blocks:
            raise UserError(f"train.{key}: this model has no blocks; leave it out")
    if section.compile:
        _require_compiler(device)
        # Blocks share their code: those of each width, length and precision need a graph of it.
        torch._dynamo.config.recompile_limit = max(_GRAPHS, torch._dynamo.config.recompile_limit)
    for block in blocks:
        forward = block.forward
        if section.compile:  # else a decoder's sizes would make those of the encoder symbolic
            forward = torch.compile(forward, dynamic=False)
        if section.checkpoint_activations:
            # Outside of the compiled function: the compiler leaves what is inside of it alone.
            # The backward pass recomputes activations; random draws must then be the same.
            forward = partial(checkpoint, forward, use_reentrant=False, context_fn=attending_again)
        block.forward = forward  # type: ignore[method-assign]


def without_compiled() -> AbstractContextManager[Any]:
    """Context in which compiled blocks run as written: for pictures, whose sizes no step has."""
    return torch.compiler.set_stance("force_eager")


def _require_compiler(device: torch.device) -> None:
    """Refuse to compile without a C++ compiler, in one line instead of a page of output."""
    wanted = os.environ.get("CXX") or "g++"
    if shutil.which(wanted) is None and shutil.which("clang++") is None:
        raise UserError(
            f"train.compile=true needs a C++ compiler, and there is no {wanted}: install one, or "
            f"use train.compile=false"
        )
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"train.compile=true works on cpu and cuda, not on {device.type}")
