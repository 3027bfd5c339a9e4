"""Precision of the forward pass: fp32, tf32, bf16 autocast, or fp16 autocast with loss scaling.

Parameters, losses, targets and optimizer state are float32 in all of them. On CUDA, products and
convolutions of float32 tensors are exact except in tf32, which rounds their factors to 10 bits as
cuDNN's convolutions would by default.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from mimsuite.config.keys.shared import Recipe
from mimsuite.errors import UserError
from mimsuite.models.attend import Way, attending
from mimsuite.train.cpu_bf16 import bf16_on_this_cpu, worth_measuring

_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """Autocast and loss scaling behind one interface.

    The precision of float32 products belongs to the process: the last instance on CUDA sets it.

    Args:
        wanted: ``fp32``, ``bf16``, ``fp16``, or ``auto``: bf16 on a CUDA device that has it, else
            fp32. :func:`precision_of` also measures whether bf16 pays on a CPU.

    Attributes:
        name: the chosen precision.
        attention: how attention is computed.
        measured: speed of bf16 on this CPU in words, if it was measured.
        warning: what is wrong with the choice, if anything.
    """

    def __init__(
        self,
        wanted: str,
        device: torch.device,
        attention: Way = "fused",
        measured: str = "",
        warning: str | None = None,
    ) -> None:
        self.device, self.attention = device, attention
        self.measured, self.warning = measured, warning
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
        """Context of a forward pass."""
        if self.half is None:
            return nullcontext()
        context = ExitStack()
        context.enter_context(attending(self.attention))
        context.enter_context(torch.autocast(self.device.type, self.half))
        return context

    def one_cast(self) -> AbstractContextManager[Any]:
        """Context of all micro-batches of a step, in which each weight is cast only once.

        Autocast forgets its copies when its outermost context ends. Weights must not change inside.
        """
        if self.half is None:
            return nullcontext()
        return torch.autocast(self.device.type, enabled=False)

    def backward(self, loss: Tensor) -> None:
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def unscale(self, optimizer: Optimizer) -> None:
        if self.scaler is not None:
            self.scaler.unscale_(optimizer)

    def step(self, optimizer: Optimizer, skipped: Tensor) -> None:
        """Update the parameters unless ``skipped`` is 1.

        Fused optimizers and LARS read the flag on the device (``found_inf``), without
        synchronisation. For other optimizers the flag is read on the CPU. The loss scale follows
        the scaler's own count of infinities.
        """
        if getattr(optimizer, "_step_supports_amp_scaling", False):
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

    def facts(self) -> dict[str, Any]:
        """What was chosen and why, for the run's records; :func:`precision_of` reads it again."""
        found: dict[str, Any] = {"name": self.name, "device": self.device.type}
        if self.name != "fp32":
            found["attention"] = self.attention
        if self.measured:
            found["measured"] = self.measured
        return found

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


def precision_of(
    recipe: Recipe, device: torch.device, before: Mapping[str, Any] | None = None
) -> Precision:
    """The precision of a recipe on a device; on a CPU decided by measurement.

    Args:
        before: :meth:`Precision.facts` of the run that is resumed, or ``{}`` where it recorded
            none; the run then keeps its precision on the same kind of device.
    """
    wanted: str = recipe.train.precision
    if before is not None and before.get("device", "cpu") == device.type:
        kept = before.get("name", "fp32")
        if wanted in ("auto", kept):
            way, measured = before.get("attention", "fused"), before.get("measured", "")
            return Precision(kept, device, way, measured)
    measures = wanted == "bf16" or (wanted == "auto" and worth_measuring(recipe))
    if device.type != "cpu" or not measures:
        return Precision(wanted, device)
    speed = bf16_on_this_cpu(recipe)
    warning = None
    if wanted == "auto":
        wanted = "bf16" if speed.pays else "fp32"
    elif not speed.pays:
        warning = f"train.precision=bf16: {speed.line()}; with train.precision=auto it is fp32"
    return Precision(wanted, device, speed.fastest, speed.line(), warning)
