"""What a recipe costs, counted on the meta device: no weights, no data, no time.

Letters: one sample is one row of the batch; FLOPs count a multiply and an add as two.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mimsuite.batch import Batch
from mimsuite.config import Resolved
from mimsuite.config.section import height_width
from mimsuite.config.sections import Recipe
from mimsuite.errors import MimsuiteError
from mimsuite.methods import Method, build
from mimsuite.noise import Noise
from mimsuite.train.device import choose_device
from mimsuite.train.step import run_method

_BYTES = 4  # parameters, gradients, optimizer state: float32
_COPIES = 4  # weight, gradient and AdamW's two moments


@dataclass(frozen=True)
class Estimate:
    """Costs of training by a recipe.

    Attributes:
        parameters, trained: number of elements.
        flops: of one sample, forward and backward.
        activation_bytes: kept for the backward pass by one sample, float32.
    """

    parameters: int
    trained: int
    flops: int
    activation_bytes: int

    def memory_bytes(self, micro_batch: int) -> int:
        """Peak memory of training at so many samples at once, without the framework's own."""
        fixed = self.parameters * _BYTES + self.trained * _BYTES * (_COPIES - 1)
        return fixed + self.activation_bytes * micro_batch


def estimate(recipe: Recipe) -> Estimate:
    """Count one sample's step on the meta device."""
    with torch.device("meta"):
        method = build(recipe).train()
        owned = {p.untyped_storage()._cdata for p in method.parameters()}
        saved: dict[int, int] = {}  # views share a storage, which counts once

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in owned:
                saved[storage._cdata] = storage.nbytes()
            return tensor

        hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
        with FlopCounterMode(display=False) as counter, hooks:
            loss = _loss(method, random_batch(recipe, 1, torch.device("meta")), recipe.train.seed)
            loss.backward()
    return Estimate(
        parameters=sum(p.numel() for p in method.parameters()),
        trained=sum(p.numel() for p in method.parameters() if p.requires_grad),
        flops=counter.get_total_flops(),
        activation_bytes=sum(saved.values()),
    )


def random_batch(recipe: Recipe, size: int, device: torch.device) -> Batch:
    """Normal noise in the shape of the recipe's images."""
    encoder = recipe.model.encoder
    shape = (size, encoder.in_channels, *height_width(encoder.image_size))
    return Batch.of_images(torch.randn(shape, device=device))


def print_estimate(resolved: Resolved) -> None:
    """`--dry-run`: the counts, then one real step of one sample where its memory is free."""
    from mimsuite.report import dry_run_table

    recipe = resolved.recipe
    counted = estimate(recipe)
    device = choose_device(recipe.train.device)
    micro = recipe.train.micro_batch or recipe.train.global_batch
    seconds = None
    if counted.memory_bytes(1) < 0.8 * _free_memory(device):
        seconds = _time_one_sample(recipe, device)
    dry_run_table(resolved, counted, micro, _samples(resolved), seconds, str(device))


def _loss(method: Method, batch: Batch, seed: int) -> Tensor:
    return run_method(method, batch, Noise(seed, 0, batch.index)).loss


def _time_one_sample(recipe: Recipe, device: torch.device) -> float:
    """Seconds of the second of two steps of one sample."""
    method = build(recipe).train().to(device)
    batch = random_batch(recipe, 1, device)
    elapsed = 0.0
    for _ in range(2):
        begun = time.perf_counter()
        loss = _loss(method, batch, recipe.train.seed)
        loss.backward()
        loss.item()  # waits for the device
        elapsed = time.perf_counter() - begun
    return elapsed


def _free_memory(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    with open("/proc/meminfo") as file:
        lines = dict(line.split(":") for line in file)
    return float(lines["MemAvailable"].split()[0]) * 1024


def _samples(resolved: Resolved) -> int | None:
    """Size of the data where it can be opened; a dry run needs none."""
    from mimsuite.data import open_training_set

    try:
        return len(open_training_set(resolved.recipe))
    except MimsuiteError:
        return None
