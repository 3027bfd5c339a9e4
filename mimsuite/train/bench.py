"""Benchmark of a training step, relative to the machine's matrix-product rate.

Steps and matrix products are timed alternately, so that both see the same machine load. On a CPU,
time is the process's CPU time over all threads, which depends less on other load than wall-clock
time; both are reported.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from mimsuite.cluster.peers import ALONE, Peers
from mimsuite.config import Resolved
from mimsuite.errors import UserError
from mimsuite.methods import Context, Method, build
from mimsuite.noise import Noise
from mimsuite.report.environment import cpu_name
from mimsuite.train.blocks import blocks_of, prepare_blocks
from mimsuite.train.device import choose_device, peak_memory_mb
from mimsuite.train.estimate import estimate
from mimsuite.train.matmul_rate import matrix_rate, memory_rate, timer
from mimsuite.train.memory import keep_freed_memory
from mimsuite.train.optim import build_optimizer, set_lr
from mimsuite.train.precision import Precision, precision_of
from mimsuite.train.random_batches import random_batch, shapes_of
from mimsuite.train.step import StepResult, train_step

_DTYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
_WARM_UP = 3  # steps until the heap has its final size and all its pages are mapped
_GEMM_ROUNDS = 7

Figures = dict[str, Any]


def bench_gemm(threads: int, device: str = "auto", precision: str = "auto") -> Figures:
    """Best and median rate of matrix products in GFLOP/s, and of memory copies in GB/s."""
    if precision not in ("auto", *_DTYPES):
        raise UserError(f"--precision {precision}: one of auto, {', '.join(_DTYPES)}")
    torch.set_num_threads(threads)
    place = choose_device(device)
    chosen = Precision(precision, place).name
    rates = [matrix_rate(place, _DTYPES[chosen]) / 1e9 for _ in range(_GEMM_ROUNDS)]
    return {
        "gemm_gflops_median": statistics.median(rates),
        "gemm_gflops_best": max(rates),
        "memory_gb_per_second": memory_rate(place) / 1e9,
        "precision": chosen,
        **machine(place, threads),
    }


@keep_freed_memory()
def bench_step(resolved: Resolved, batch: int, threads: int, rounds: int) -> Figures:
    """Time whole optimizer steps on one random batch, alternating with matrix products."""
    torch.set_num_threads(threads)
    recipe = resolved.recipe
    device = choose_device(recipe.train.device)
    precision = precision_of(recipe, device).name
    now, prepared = timer(device), list[float]()
    run = Stepper(resolved, batch, device, watch=lambda method: _clock(method, now, prepared))
    for _ in range(_WARM_UP):
        run()
    prepared.clear()
    seconds, walls, rates = [], [], []
    for _ in range(rounds):
        rates.append(matrix_rate(device, _DTYPES[precision]))
        begun, wall = now(), time.perf_counter()
        run()
        seconds.append(now() - begun)
        walls.append(time.perf_counter() - wall)
    rates.append(matrix_rate(device, _DTYPES[precision]))
    second = statistics.median(seconds)
    rest = [whole - part for whole, part in zip(seconds, prepared, strict=True)]
    counted = estimate(recipe, precision)
    rate = counted.flops * batch / second / 1e9
    limit = statistics.median(rates) / 1e9
    return {
        "recipe": resolved.name,
        "batch": batch,
        "seconds_per_step": second,
        "seconds_min_max": [min(seconds), max(seconds)],
        "seconds_without_prepare": statistics.median(rest),
        "wall_seconds_per_step": statistics.median(walls),
        "samples_per_second": batch / second,
        "gflop_per_sample": counted.flops / 1e9,
        "gflops": rate,
        "gemm_gflops": limit,
        "share_of_gemm": rate / limit,
        "peak_memory_mb": peak_memory_mb(device),
        "precision": precision,
        "rounds": rounds,
        **machine(device, threads),
    }


@keep_freed_memory()
def bench_ranks(resolved: Resolved, batch: int, threads: int, rounds: int, peers: Peers) -> Figures:
    """Wall-clock time of a step of ``batch`` samples over all ranks; all ranks must call it.

    CPU time would not do here, because ranks wait for each other.
    """
    torch.set_num_threads(threads)
    device = choose_device(resolved.recipe.train.device)
    run = Stepper(resolved, batch // peers.world, device, peers)
    run()
    walls = []
    for _ in range(rounds):
        begun = time.perf_counter()
        run()
        peers.any_rank(False)  # wait for the slowest rank
        walls.append(time.perf_counter() - begun)
    second = statistics.median(walls)
    return {
        "processes": peers.world,
        "threads": threads,
        "wall_seconds_per_step": second,
        "samples_per_second": batch / second,
    }


class Stepper:
    """Runs whole optimizer steps of a recipe on the same random batch.

    Attributes:
        method: in train mode, as the recipe's ``train`` section wants it.
        batch: the rows of every step.
    """

    def __init__(
        self,
        resolved: Resolved,
        batch: int,
        device: torch.device,
        peers: Peers = ALONE,
        watch: Callable[[Method], None] = lambda method: None,
    ) -> None:
        """``watch`` is called with the method before the first step."""
        recipe = self.recipe = resolved.recipe
        self.method = build(recipe).train().to(device)
        watch(self.method)
        prepare_blocks(self.method, recipe.train, device)
        self.precision, self.peers = precision_of(recipe, device), peers
        self.replica = peers.replicate(
            self.method, blocks_of(self.method), recipe.train.parallel, self.precision.half
        )
        self.optimizer = build_optimizer(self.method, recipe)
        set_lr(self.optimizer, recipe.lr)
        self.batch = random_batch(shapes_of(recipe), batch, device)
        self._rows = self.batch.index.cpu()

    def __call__(self) -> StepResult:
        return train_step(
            self.method,
            self.optimizer,
            [self.batch],
            1,
            noise=lambda rows: Noise(self.recipe.train.seed, 0, rows.index, self._rows),
            precision=self.precision,
            clip_grad=self.recipe.optim.clip_grad,
            peers=self.peers,
            replica=self.replica,
        )


def _clock(method: Method, now: Callable[[], float], spent: list[float]) -> None:
    """Record the time of each later ``prepare`` call, the part of a step without gradient, such as
    a teacher's forward pass."""
    prepare = method.prepare

    def timed(*args: Any, **keywords: Any) -> Context:
        begun = now()
        context = prepare(*args, **keywords)
        spent.append(now() - begun)
        return context

    method.prepare = timed  # type: ignore[method-assign]


def machine(device: torch.device, threads: int) -> Figures:
    """The facts about machine and software that figures depend on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    return {
        "device": name,
        "threads": threads,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "torch": torch.__version__,
        "platform": platform.platform(),
    }
