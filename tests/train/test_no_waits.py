"""No recipe's training step waits for the device.

Reading a number on the host, or making a tensor whose size depends on numbers, makes the host wait
until a GPU has done all work before it. On a CPU the operations that would wait are found by name.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import mimsuite
from mimsuite import config
from mimsuite.methods import build
from mimsuite.methods.base import Progress
from mimsuite.noise import Noise
from mimsuite.train.average import MovingAverage
from mimsuite.train.optim import build_optimizer, set_lr
from mimsuite.train.precision import Precision
from mimsuite.train.random_batches import random_batch, shapes_of
from mimsuite.train.step import train_step

CPU = torch.device("cpu")
WAITS = {
    *("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero"),
    *("unique_dim", "_unique2", "bincount"),
}
INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_"}


class Waits(TorchDispatchMode):
    """Notes the places in the package whose operations would wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.places: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        by_mask = name in INDEXED and any(
            isinstance(ids, Tensor) and ids.dtype in (torch.bool, torch.uint8)
            for ids in (args[1] or ())
        )
        if name in WAITS or by_mask:
            self.places.add(f"{_place()} {'index by a mask' if by_mask else name}")
        return func(*args, **(kwargs or {}))


def _place() -> str:
    """File and line of the innermost frame in the package."""
    root = Path(mimsuite.__file__).parent
    for frame in reversed(traceback.extract_stack()):
        if Path(frame.filename).is_relative_to(root):
            return f"{Path(frame.filename).relative_to(root)}:{frame.lineno}"
    return "outside"


def one_of_each_method() -> Iterator[str]:
    """A recipe of each method that trains on samples whose shapes and labels need no data."""
    seen = {"dense", "dictionary", "point-segment"}
    for name in config.recipe_names():
        method = config.load(name).recipe.method.name
        if method not in seen:
            seen.add(method)
            yield name


def waits_of(name: str, *keys: str) -> set[str]:
    """Places where the second step of a recipe at smoke size would wait."""
    resolved = config.load(name, keys, smoke=True)
    if getattr(resolved.recipe.target, "classes", 0) is None:
        resolved = config.with_overrides(resolved, {"target.classes": 4}, "test")
    recipe = resolved.recipe
    torch.manual_seed(0)
    method = build(recipe).train()
    optimizer = build_optimizer(method, recipe)
    set_lr(optimizer, 1e-4)
    average = MovingAverage(method, 0.9)
    batch = random_batch(shapes_of(recipe), 4, CPU)

    def step(number: int) -> None:
        result = train_step(
            method,
            optimizer,
            [batch],
            1,
            noise=lambda rows: Noise(0, number, rows.index, rows.index),
            precision=Precision("fp32", CPU),
            clip_grad=1.0,
            progress=Progress(number, 10, 5),
        )
        average.update(method, result.skipped)

    step(0)  # makes the optimizer's state and what is made once for a device
    with Waits() as waits:
        step(1)
    return waits.places


def test_what_would_wait_is_found() -> None:
    flags = torch.tensor([True, False])
    with Waits() as waits:
        flags.any().item()
        flags[flags]
    assert waits.places == {"outside _local_scalar_dense", "outside index by a mask"}


@pytest.mark.parametrize("name", one_of_each_method())
def test_a_step_waits_for_nothing(name: str) -> None:
    assert waits_of(name) == set()


@pytest.mark.parametrize("optimizer", ["lars", "sgd"])
def test_no_optimizer_waits(optimizer: str) -> None:
    assert waits_of("image/mae-tiny-fashion", f"optim.name={optimizer}") == set()
