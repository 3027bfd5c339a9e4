"""What a whole run by a recipe would take on given devices: memory, batch, steps and hours."""

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
from mimsuite.train.example import shapes_of
from mimsuite.train.precision import Precision
from mimsuite.train.rate import matrix_rate

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_ROOM = 0.9  # of the device's memory: the rest is the framework's and lost between blocks


@dataclass(frozen=True)
class Devices:
    """What a run is planned for.

    Attributes:
        name: as people call it.
        count: how many.
        memory_bytes: of each, free for training.
        on_host: they are CPUs, in whose memory checkpoints are put together, too.
        precision: number format of the forward pass.
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
        per_device: samples on a device at once, ``accumulation`` times a step.
        fits: whether memory suffices; ``None``: not known.
        micro_batch: the largest that would fit and divides the device's share; 0: none does.
        batch_bytes: of a micro-batch as loader workers hand it over.
        samples: of the data; ``None``: it cannot be opened.
        peak_flops: of each device, a second; ``None``: not known.
        peak_origin: where that is from.
        hours: at ``utilisation`` of the peak.
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
    """The devices that a recipe would train on.

    Args:
        gpus: so many CUDA devices, whether this machine has them or not; ``None`` = what is here.
        memory_gb: of each, where it is not to be asked.
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
    precision = Precision(wanted, device).name
    return Devices(name, gpus or 1, memory, device.type != "cuda", precision)


def make_plan(
    resolved: Resolved,
    devices: Devices,
    *,
    utilisation: float = 0.4,
    peak_tflops: float | None = None,
) -> Plan:
    """Count what a run takes.

    Args:
        utilisation: of the peak rate that training reaches; 0.2 to 0.5 is usual.
        peak_tflops: of a device; ``None`` = this machine's, measured, where it is the device.

    Raises:
        UserError: the batch cannot be shared out.
    """
    recipe = resolved.recipe
    counted = estimate(recipe, devices.precision)
    share, per_device = _shared(recipe, devices.count)
    shards = devices.count if recipe.train.parallel == "fsdp" else 1
    memory = counted.memory(per_device, shards, on_host=devices.on_host)
    free, largest = devices.memory_bytes, share
    if free is not None:
        largest = counted.largest_micro_batch(_ROOM * free, shards, on_host=devices.on_host)
    fitting = (n for n in range(1, share + 1) if share % n == 0 and n <= largest)
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
    """(samples of a device in a step, samples at once)."""
    batch = recipe.train.global_batch
    if batch % count:
        raise UserError(f"train.global_batch={batch} cannot be shared evenly by {count} devices")
    share = batch // count
    micro = min(recipe.train.micro_batch or share, share)
    if share % micro:
        raise UserError(f"train.micro_batch={micro} does not divide the {share} of each device")
    return share, micro


def _steps(recipe: Recipe, samples: int) -> int:
    batch = recipe.train.global_batch
    whole = -(-samples // batch) if recipe.data.tail == "repeat" else samples // batch
    return round(recipe.schedule.epochs * whole)


def _stored_bytes(recipe: Recipe) -> int:
    """Of one sample's views, a byte a number; more than 8 bits are handed over as floats."""
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
