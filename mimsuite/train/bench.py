"""The speed of a training step as a share of the matrix-product rate of the same run."""

from __future__ import annotations

import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from mimsuite.config import Resolved
from mimsuite.methods import build
from mimsuite.noise import Noise
from mimsuite.train.device import choose_device, peak_memory_mb
from mimsuite.train.estimate import estimate, random_batch
from mimsuite.train.memory import keep_freed_memory
from mimsuite.train.optim import build_optimizer, set_lr
from mimsuite.train.precision import Precision
from mimsuite.train.step import train_step

# (rows, inner, columns) of the products that dominate a ViT-B step at batch 4.
_SHAPES = ((788, 768, 2304), (788, 768, 3072), (788, 3072, 768), (788, 512, 2048))
_GEMM_SECONDS = 0.5  # a round of products lasts about so long
_WARM_UP = 3  # steps until the heap has its final size and no page is touched for the first time


def bench_gemm(threads: int, device: str = "cpu") -> dict[str, Any]:
    """Best and median rate of float32 matrix products, GFLOP/s."""
    torch.set_num_threads(threads)
    rates = [_gemm_rate(torch.device(device)) for _ in range(7)]
    return {
        "gemm_gflops_median": statistics.median(rates),
        "gemm_gflops_best": max(rates),
        **_machine(threads),
    }


def bench_step(resolved: Resolved, batch: int, threads: int, rounds: int) -> dict[str, Any]:
    """Time steps and matrix products in turn, so that both see the same machine.

    On a CPU seconds are of the process, which a busy machine stretches less than the wall clock.
    """
    torch.set_num_threads(threads)
    keep_freed_memory()
    recipe = resolved.recipe
    device = choose_device(recipe.train.device)
    run, now = stepper(resolved, batch, device), _timer(device)
    for _ in range(_WARM_UP):
        run()
    seconds, rates = [], []
    for _ in range(rounds):
        rates.append(_gemm_rate(device))
        begun = now()
        run()
        seconds.append(now() - begun)
    rates.append(_gemm_rate(device))
    second = statistics.median(seconds)
    counted = estimate(recipe)
    rate = counted.flops * batch / second / 1e9
    limit = statistics.median(rates)
    return {
        "recipe": resolved.name,
        "batch": batch,
        "seconds_per_step": second,
        "seconds_min_max": [min(seconds), max(seconds)],
        "samples_per_second": batch / second,
        "gflop_per_sample": counted.flops / 1e9,
        "gflops": rate,
        "gemm_gflops": limit,
        "share_of_gemm": rate / limit,
        "peak_memory_mb": peak_memory_mb(device),
        **_machine(threads),
    }


def stepper(resolved: Resolved, batch: int, device: torch.device) -> Callable[[], None]:
    """A function that runs one whole optimizer step on the same random batch."""
    recipe = resolved.recipe
    method = build(recipe).train().to(device)
    optimizer = build_optimizer(method, recipe)
    set_lr(optimizer, recipe.lr)
    precision = Precision(recipe.train.precision, device)
    images = random_batch(recipe, batch, device)

    def run() -> None:
        train_step(
            method,
            optimizer,
            [images],
            1,
            noise=lambda rows: Noise(recipe.train.seed, 0, rows.index),
            precision=precision,
            clip_grad=recipe.optim.clip_grad,
        )

    return run


def print_bench(figures: dict[str, Any], as_json: bool) -> None:
    """A line a figure for people on stderr, or one JSON object on stdout."""
    if as_json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        shown = f"{value:.4g}" if isinstance(value, float) else value
        print(f"{name.replace('_', ' '):>22}  {shown}", file=sys.stderr)


def _gemm_rate(device: torch.device) -> float:
    """GFLOP/s over the shapes, each for its share of the time."""
    now = _timer(device)
    flops = elapsed = 0.0
    for rows, inner, columns in _SHAPES:
        left = torch.randn(rows, inner, device=device)
        right = torch.randn(inner, columns, device=device)
        out = left @ right
        begun = now()
        while now() - begun < _GEMM_SECONDS / len(_SHAPES):
            torch.mm(left, right, out=out)
            flops += 2.0 * rows * inner * columns
        elapsed += now() - begun
    return flops / elapsed / 1e9


def _timer(device: torch.device) -> Callable[[], float]:
    if device.type != "cuda":
        return time.process_time

    def now() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return now


def _machine(threads: int) -> dict[str, Any]:
    return {"threads": threads, "processor": platform.processor() or platform.machine()}
