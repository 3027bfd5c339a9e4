"""One training step on a device: what it computes, with what, and that it waits for nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mimsuite import config
from mimsuite.batch import Batch
from mimsuite.config import Resolved
from mimsuite.data import Normalize
from mimsuite.methods import Method, build
from mimsuite.noise import Noise
from mimsuite.train.blocks import prepare_blocks
from mimsuite.train.optim import build_optimizer, set_lr, trained
from mimsuite.train.precision import Precision
from mimsuite.train.random_batches import random_batch, shapes_of
from mimsuite.train.state import seed_generators
from mimsuite.train.step import run_method, train_step

# Heads of 32, as flash attention wants them, and enough tokens that attention matters.
KEYS = (
    "model.encoder.image_size=64",
    "model.encoder.patch_size=8",
    "model.encoder.width=128",
    "model.encoder.depth=2",
    "model.decoder.width=64",
    "model.decoder.heads=2",
    "optim.clip_grad=1.0",
)


def recipe_of(*keys: str) -> Resolved:
    return config.load("image/mae-tiny-fashion", [*KEYS, *keys])


def model_of(resolved: Resolved, device: torch.device) -> tuple[Method, Batch]:
    """The same weights and numbers whatever the device."""
    seed_generators(0)
    method = build(resolved.recipe).train()
    prepare_blocks(method, resolved.recipe.train, device)
    batch = random_batch(shapes_of(resolved.recipe), 8, torch.device("cpu"))
    return method.to(device), batch.to(device)


class Operations(TorchDispatchMode):
    """Remembers every operation: its name, its first tensor, and the device it brought it to."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, Tensor | None, Any]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        first = next((arg for arg in args if isinstance(arg, Tensor)), None)
        self.seen.append((func.overloadpacket.__name__, first, kwargs.get("device")))
        return func(*args, **kwargs)

    @property
    def names(self) -> set[str]:
        return {name for name, *_ in self.seen}


def loss_and_gradients(precision: str, device: torch.device) -> tuple[Tensor, Tensor]:
    method, batch = model_of(recipe_of(), device)
    chosen = Precision(precision, device)
    with chosen.autocast():
        loss = run_method(method, batch, Noise(0, 0, batch.index)).loss
    chosen.backward(loss)
    gradients = [p.grad.flatten() for p in method.parameters() if p.grad is not None]
    return loss.detach(), torch.cat(gradients)


def test_bf16_agrees_with_fp32(device):
    loss, gradients = loss_and_gradients("fp32", device)
    half_loss, half = loss_and_gradients("bf16", device)
    assert half_loss.dtype == half.dtype == torch.float32
    assert float(half_loss) == pytest.approx(float(loss), rel=0.01)
    assert float((half - gradients).norm() / gradients.norm()) < 0.03


@pytest.mark.gpu
def test_fp16_with_scaled_loss_agrees_with_fp32():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device: fp16 is refused elsewhere")
    device = torch.device("cuda")
    loss, _ = loss_and_gradients("fp32", device)
    half_loss, half = loss_and_gradients("fp16", device)
    assert float(half_loss) == pytest.approx(float(loss), rel=0.01)
    assert bool(half.isfinite().all())


@pytest.mark.gpu  # on a CPU: tests/train/test_blocks.py
def test_compiled_blocks_give_the_same_step():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    device, losses = torch.device("cuda"), []
    for compiled in ("false", "true"):
        method, batch = model_of(recipe_of(f"train.compile={compiled}"), device)
        output = run_method(method, batch, Noise(0, 0, batch.index))
        output.loss.backward()
        losses.append(float(output.loss.detach()))
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_attention_is_a_fused_one(device):
    """Whichever torch chooses: flash, cuDNN's or the memory-efficient kernel."""
    method, batch = model_of(recipe_of(), device)
    precision = Precision("auto", device)
    with Operations() as operations, precision.autocast():
        run_method(method, batch, Noise(0, 0, batch.index)).loss.backward()
    fused = {name for name in operations.names if name.startswith("_scaled_dot_product_")}
    kernels = {name.removesuffix("_backward") for name in fused}
    assert len(kernels) == 1
    assert fused == kernels | {f"{name}_backward" for name in kernels}
    assert "_softmax" not in operations.names


def test_adamw_is_fused_and_equals_the_plain_one(device):
    weights = []
    for fused in (True, False):
        method, _ = model_of(recipe_of(), device)
        optimizer = build_optimizer(method, recipe_of().recipe)
        assert optimizer.defaults["fused"] is True
        for group in optimizer.param_groups:
            group["fused"] = fused
        set_lr(optimizer, 1e-3)
        chance = torch.Generator().manual_seed(0)
        for _ in range(3):
            for parameter in trained(optimizer):
                parameter.grad = torch.randn(parameter.shape, generator=chance).to(device)
            optimizer.step()
        weights.append(torch.cat([p.detach().flatten() for p in method.parameters()]))
    assert float((weights[0] - weights[1]).abs().max()) < 1e-6


def one_step(method, optimizer, batch, step):
    return train_step(
        method,
        optimizer,
        [batch],
        1,
        noise=lambda rows: Noise(0, step, rows.index),
        precision=Precision("auto", batch.index.device),
        clip_grad=1.0,
    )


def test_images_reach_the_device_as_bytes(device):
    recipe = recipe_of().recipe
    normalize = Normalize(recipe.augment, device)
    batch = random_batch(shapes_of(recipe), 8, torch.device("cpu"))
    bytes_of = {"image": torch.randint(0, 256, batch.image.shape, dtype=torch.uint8)}
    batch = replace(batch, views=bytes_of)
    if device.type == "cuda":
        batch = batch.pin_memory()
    with Operations() as operations:
        ours = normalize(batch).image
    sent = [
        tensor
        for name, tensor, to in operations.seen
        if name == "_to_copy" and to is not None and tensor.ndim == 4 and tensor.is_cpu
        if torch.device(to).type == device.type  # `to` may be without a number
    ]
    if device.type == "cuda":  # on the CPU nothing is sent
        assert sent
        assert {tensor.dtype for tensor in sent} == {torch.uint8}
    assert ours.device.type == device.type
    assert ours.dtype == torch.float32
    wanted = Normalize(recipe.augment, "cpu")(replace(batch, views=bytes_of)).image
    assert torch.allclose(ours.cpu(), wanted, atol=1e-6)


@contextmanager
def no_waiting(device: torch.device) -> Iterator[Operations]:
    """CUDA raises where the host waits; elsewhere the operations that would make it are found."""
    with Operations() as operations:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("error")
        try:
            yield operations
        finally:
            if device.type == "cuda":
                torch.cuda.set_sync_debug_mode("default")


def test_a_step_never_waits_for_the_device(device):
    method, batch = model_of(recipe_of("model.encoder.drop_path=0.1"), device)
    optimizer = build_optimizer(method, recipe_of().recipe)
    for step in range(2):  # the first makes the optimizer's state
        one_step(method, optimizer, batch, step)
    with no_waiting(device) as operations:
        one_step(method, optimizer, batch, 2)
    read = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero"}
    assert operations.names & read == set()


def test_a_step_that_waits_would_be_found(device):
    value = torch.ones(3, device=device)
    if device.type == "cuda":
        with pytest.raises(RuntimeError), no_waiting(device):
            value.sum().item()
    else:
        with no_waiting(device) as operations:
            value.sum().item()
        assert "_local_scalar_dense" in operations.names
