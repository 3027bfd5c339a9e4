"""The state of a run, as stored in a checkpoint: read from live objects and restored to them.

Order, crops, masks and schedules are pure functions of the step. The state is therefore the model,
the optimizer, the moving average, the loss scaler, the running sums of the log and the global
generators, which third-party code may use.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mimsuite.cluster.sharding import Rows, part_like, put
from mimsuite.errors import UserError
from mimsuite.train.stored import unread


def load_model(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Restore a state dict of whole tensors, one by one.

    Raises:
        UserError: the architecture differs; the message names the first differing tensor.
    """
    ours = model.state_dict()
    for name in dict.fromkeys((*ours, *tensors)):
        saved = unread(tensors, name)
        target = ours.get(name)
        if saved is None or target is None or saved.shape != target.shape:
            raise UserError(
                f"the checkpoint is of another model ({name}: {_shape(saved)} there, "
                f"{_shape(target)} here): resume with the recipe of its run, or start from its "
                f"weights with --init-from"
            )
        put(target, saved)


def _shape(tensor: Rows | None) -> str:
    return "none" if tensor is None else " x ".join(map(str, tensor.shape)) or "scalar"


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """Optimizer state as ``<parameter name>/<entry>`` tensors; groups must have ``names``."""
    tensors: dict[str, Tensor] = {}
    for group in optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            for entry, value in optimizer.state.get(parameter, {}).items():
                tensors[f"{name}/{entry}"] = torch.as_tensor(value)
    return tensors


def load_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Restore :func:`optimizer_tensors`.

    Raises:
        UserError: there is state for a parameter that this optimizer does not train.
    """
    left: dict[str, list[str]] = {}
    for key in tensors:
        left.setdefault(key.rpartition("/")[0], []).append(key)
    for group in optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            for key in left.pop(name, []):
                saved = unread(tensors, key)
                assert saved is not None
                # AdamW's `step` is float32 and stays on the CPU unless the optimizer is fused.
                own = bool(saved.shape) or _fused(optimizer)
                value = part_like(parameter, saved) if own else saved[...].clone()
                optimizer.state[parameter][key.rpartition("/")[2]] = value
    if left:
        raise UserError(f"the checkpoint's optimizer trains {next(iter(left))}, this recipe not")


def seed_generators(key: int) -> None:
    """Seed torch's, numpy's and Python's global generators."""
    torch.manual_seed(key)
    np.random.seed(key % 2**32)
    random.seed(key)


def generator_tensors() -> dict[str, Tensor]:
    """States of torch's (CPU and CUDA), numpy's and Python's global generators."""
    numpy_state: Any = np.random.get_state()
    python_state = random.getstate()
    tensors = {
        "torch": torch.get_rng_state(),
        "numpy": torch.from_numpy(numpy_state[1].astype(np.int64)),
        "numpy_position": torch.tensor([numpy_state[2]]),
        "python": torch.tensor(python_state[1], dtype=torch.int64),
    }
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.get_rng_state()
    return tensors


def load_generators(tensors: Mapping[str, Tensor]) -> None:
    """Restore :func:`generator_tensors`."""
    torch.set_rng_state(tensors["torch"])
    words = tensors["numpy"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", words, int(tensors["numpy_position"]), 0, 0.0))
    random.setstate((3, tuple(tensors["python"].tolist()), None))
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])


def _fused(optimizer: Optimizer) -> bool:
    return bool(optimizer.defaults.get("fused"))
