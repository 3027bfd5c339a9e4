"""Costs of a whole run on given devices: memory, batch, steps and hours."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from mimsuite.cluster.host import usable_memory
from mimsuite.config import Resolved
from mimsuite.config.keys.shared import Recipe
from mimsuite.data.modalities import get
from mimsuite.errors import UserError
from mimsuite.train.device import choose_device
from mimsuite.train.estimate import Estimate, Memory, estimate, samples_of
from mimsuite.train.matmul_rate import matrix_rate
from mimsuite.train.precision import precision_of
from mimsuite.train.random_batches import shapes_of

_DTYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
_ROOM = 0.9  # usable share of device memory; the framework and fragmentation take the rest


@dataclass(frozen=True)
class Devices:
    """The devices that a run is planned for.

    Attributes:
        name: readable name.
        count: number of devices.
        memory_bytes: memory per device that is free for training.
        on_host: whether they are CPUs, whose memory also holds checkpoint buffers.
        precision: dtype of the forward pass: ``fp32``, ``bf16`` or ``fp16``.
    """

    name: str
    count: int
    memory_bytes: float | None
    on_host: bool
    precision: str


@dataclass(frozen=True)
class Plan:
    """The costs of a run.

    Attributes:
        per_device: samples per device and micro-batch; a step has ``accumulation`` micro-batches.
        fits: whether memory suffices; ``None``: unknown.
        micro_batch: the largest that fits and divides the device's share; 0: none.
        batch_bytes: bytes of a micro-batch, as loader workers pass it.
        samples: number of samples; ``None``: the data cannot be opened.
        peak_flops: peak FLOP/s per device; ``None``: unknown.
        peak_origin: where ``peak_flops`` comes from.
        hours: duration at ``utilisation`` of the peak.
    """

    name: str
    devices: Devices
    costs: Estimate
    memory: Memory
    fits: bool | None
    micro_batch: int
    global_batch: int
    per_device: int
    accumulation: int
    batch_bytes: int
    lr: float
    epochs: float
    samples: int | None
    steps: int | None
    utilisation: float
    peak_flops: float | None
    peak_origin: str
    hours: float | None

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "memory": self.memory.as_dict()}


def planned_devices(recipe: Recipe, gpus: int | None, memory_gb: float | None) -> Devices:
    """The devices to plan for.

    Args:
        gpus: number of CUDA devices, which need not exist here; ``None`` = this machine's devices.
        memory_gb: memory per device; ``None`` = ask the device.
    """
    wanted = recipe.train.precision
    if gpus is not None and not torch.cuda.is_available():
        memory = None if memory_gb is None else memory_gb * 1e9
        return Devices("GPU", gpus, memory, False, "bf16" if wanted == "auto" else wanted)
    device = choose_device("cuda" if gpus is not None else recipe.train.device)
    if device.type == "cuda":
        name, free = torch.cuda.get_device_name(device), torch.cuda.mem_get_info(device)[0]
    else:
        name, free = str(device), usable_memory()
    memory = float(free) if memory_gb is None else memory_gb * 1e9
    precision = precision_of(recipe, device).name
    return Devices(name, gpus or 1, memory, device.type != "cuda", precision)


def make_plan(
    resolved: Resolved,
    devices: Devices,
    *,
    utilisation: float = 0.4,
    peak_tflops: float | None = None,
) -> Plan:
    """Compute the costs of a run.

    Args:
        utilisation: share of the peak rate that training reaches; 0.2 to 0.5 is usual.
        peak_tflops: peak rate of a device; ``None`` = measure it, if the device is this machine's.

    Raises:
        UserError: the batch cannot be divided evenly.
    """
    recipe = resolved.recipe
    counted = estimate(recipe, devices.precision)
    share, per_device = _shared(recipe, devices.count)
    automatic = recipe.train.micro_batch == "auto"
    shards = devices.count if recipe.train.parallel == "fsdp" else 1
    free, largest = devices.memory_bytes, share
    if free is not None:
        largest = counted.largest_micro_batch(_ROOM * free, shards, on_host=devices.on_host)
    fitting = [n for n in range(1, share + 1) if share % n == 0 and n <= largest]
    per_device = max(fitting, default=1) if automatic else per_device
    memory = counted.memory(per_device, shards, on_host=devices.on_host)
    samples = samples_of(recipe)
    batch = recipe.train.global_batch
    steps = None if samples is None else _steps(recipe, samples)
    peak, origin = _peak(devices, peak_tflops)
    hours = None
    if steps is not None and peak:
        hours = counted.flops * batch * steps / (devices.count * peak * utilisation) / 3600
    return Plan(
        name=resolved.name,
        devices=devices,
        costs=counted,
        memory=memory,
        fits=None if free is None else memory.total <= free,
        micro_batch=max(fitting, default=0),
        global_batch=batch,
        per_device=per_device,
        accumulation=share // per_device,
        batch_bytes=per_device * _stored_bytes(recipe),
        lr=recipe.lr,
        epochs=recipe.schedule.epochs,
        samples=samples,
        steps=steps,
        utilisation=utilisation,
        peak_flops=peak,
        peak_origin=origin,
        hours=hours,
    )


def _shared(recipe: Recipe, count: int) -> tuple[int, int]:
    """(samples per device and step, samples per micro-batch)."""
    batch = recipe.train.global_batch
    if batch % count:
        raise UserError(f"train.global_batch={batch} cannot be shared evenly by {count} devices")
    share = batch // count
    micro = min(recipe.train.most_at_once, share)
    if share % micro:
        raise UserError(f"train.micro_batch={micro} does not divide the {share} of each device")
    return share, micro


def _steps(recipe: Recipe, samples: int) -> int:
    batch = recipe.train.global_batch
    whole = -(-samples // batch) if recipe.data.tail == "repeat" else samples // batch
    return round(recipe.schedule.epochs * whole)


def _stored_bytes(recipe: Recipe) -> int:
    """Bytes of one sample's views, as loaded: one per number for uint8, more for floats."""
    numbers = sum(torch.Size(shape).numel() for shape in shapes_of(recipe).values())
    of_one = 4 if recipe.data.channels == "gray16" else get(recipe.recipe.modality).bytes_per_number
    return numbers * of_one


def _peak(devices: Devices, given: float | None) -> tuple[float | None, str]:
    if given is not None:
        return given * 1e12, "as given"
    if devices.name == "GPU":
        return None, "not known: give --peak-tflops"
    place = torch.device("cpu" if devices.on_host else "cuda")
    rate = matrix_rate(place, _DTYPES[devices.precision], wall=True)
    threads = f" on {torch.get_num_threads()} threads" if devices.on_host else ""
    return rate, f"matrix products measured here{threads}"
