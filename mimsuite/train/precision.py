"""Precision of the forward pass: fp32, tf32, bf16 autocast, or fp16 autocast with loss scaling.

Parameters, losses, targets and optimizer state are float32 in all of them. On CUDA, products and
convolutions of float32 tensors are exact except in tf32, which rounds their factors to 10 bits as
cuDNN's convolutions would by default.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from mimsuite.errors import UserError

_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """Autocast and loss scaling behind one interface; ``name`` is the chosen precision.

    The precision of float32 products belongs to the process: the last instance on CUDA sets it.
    """

    def __init__(self, wanted: str, device: torch.device) -> None:
        self.device = device
        self.name = self._choose(wanted)
        self.scaler = torch.amp.GradScaler(device.type) if self.name == "fp16" else None
        if device.type == "cuda":
            rounded = self.name == "tf32"
            torch.set_float32_matmul_precision("high" if rounded else "highest")
            torch.backends.cudnn.allow_tf32 = rounded

    @property
    def half(self) -> torch.dtype | None:
        """The 16-bit type of autocast, if there is one."""
        return _HALF.get(self.name)

    def autocast(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.half is None else torch.autocast(self.device.type, self.half)

    def backward(self, loss: Tensor) -> None:
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def unscale(self, optimizer: Optimizer) -> None:
        if self.scaler is not None:
            self.scaler.unscale_(optimizer)

    def step(self, optimizer: Optimizer, skipped: Tensor) -> None:
        """Update the parameters unless ``skipped`` is 1.

        A fused optimizer reads the flag on the device (``found_inf``), without synchronisation. For
        other optimizers, used only for small heads, the flag is read on the CPU. The loss scale
        follows the scaler's own count of infinities.
        """
        if optimizer.defaults.get("fused"):
            optimizer.found_inf = skipped  # type: ignore[attr-defined]
            optimizer.grad_scale = None  # type: ignore[attr-defined]
            optimizer.step()
        elif not bool(skipped):
            optimizer.step()
        if self.scaler is not None:
            self.scaler.update()

    def state_dict(self) -> dict[str, Any]:
        return {} if self.scaler is None else self.scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.scaler is not None and state:
            self.scaler.load_state_dict(state)

    def _choose(self, wanted: str) -> str:
        if wanted == "auto":
            # Older GPUs emulate bf16, slower than fp32.
            real = {"including_emulation": False}
            cuda = self.device.type == "cuda"
            return "bf16" if cuda and torch.cuda.is_bf16_supported(**real) else "fp32"
        if wanted in ("fp16", "tf32") and self.device.type != "cuda":
            raise UserError(
                f"train.precision={wanted} needs a CUDA device, not {self.device.type}: use fp32"
            )
        return wanted

    @property
    def warning(self) -> str | None:
        """A warning about the chosen precision, if there is any."""
        if self.name == "bf16" and self.device.type == "cpu":
            # Measured on a CPU without native bf16: 29 times slower.
            return (
                "train.precision=bf16 on a CPU: most of them are many times slower with it than "
                "with fp32; use train.precision=auto"
            )
        return None
