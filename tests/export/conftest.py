"""Tiny models with weights that differ in every tensor, and files made of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mimsuite import config
from mimsuite.config import Resolved
from mimsuite.methods import Method, build
from mimsuite.train import checkpoint

TINY: dict[str, Any] = {
    "model.encoder.image_size": 32,
    "model.encoder.patch_size": 8,
    "model.encoder.width": 32,
    "model.encoder.depth": 2,
    "model.encoder.heads": 4,
    "augment.eval_resize": None,
}
TINY_DECODER: dict[str, Any] = {
    "model.decoder.width": 16,
    "model.decoder.depth": 1,
    "model.decoder.heads": 4,
}


def _filled(method: Method) -> Method:
    """Every weight off its initial value, so that biases, norms and tokens matter."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in method.named_parameters():
            if not name.endswith("pos_embed"):
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
        for buffer in method.buffers():
            if buffer.is_floating_point():
                buffer += torch.rand(buffer.shape, generator=generator)
    return method.eval()


@pytest.fixture
def mae() -> Callable[..., tuple[Resolved, Method]]:
    """``mae(**changes)``: a tiny autoencoder and its recipe; keys with ``__`` for dots."""

    def make(**changes: Any) -> tuple[Resolved, Method]:
        keys = {key.replace("__", "."): value for key, value in changes.items()}
        resolved = config.load("image/mae-vitb16-in1k")
        resolved = config.with_overrides(resolved, {**TINY, **TINY_DECODER, **keys}, "test")
        return resolved, _filled(build(resolved.recipe))

    return make


@pytest.fixture
def classifier() -> Callable[..., tuple[Resolved, Method]]:
    """``classifier(recipe, **changes)``: likewise, of 5 classes."""

    def make(task: str = "finetune", **changes: Any) -> tuple[Resolved, Method]:
        keys = {key.replace("__", "."): value for key, value in changes.items()}
        resolved = config.load(f"image/mae-vitb16-{task}-in1k")
        keys = {**TINY, "target.classes": 5, **keys}
        resolved = config.with_overrides(resolved, keys, "test")
        return resolved, _filled(build(resolved.recipe))

    return make


@pytest.fixture
def run_of() -> Callable[..., Path]:
    """``run_of(folder, resolved, method, step)``: a run directory with one checkpoint."""

    def make(folder: Path, resolved: Resolved, method: Method, step: int = 7, **parts: Any) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(resolved.yaml())
        state = checkpoint.CheckpointState(step, resolved.document, method.state_dict(), **parts)
        checkpoint.save(folder / "checkpoints", state)
        return folder

    return make


@pytest.fixture
def images() -> Callable[..., Tensor]:
    def make(height: int = 32, width: int = 32, channels: int = 3, batch: int = 2) -> Tensor:
        generator = torch.Generator().manual_seed(2)
        return torch.randn(batch, channels, height, width, generator=generator)

    return make
