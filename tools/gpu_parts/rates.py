"""Samples a second and share of the peak of published recipes, at a batch that fills a large card.

The peak is the rate of matrix products of the same precision, measured just before.
"""

from __future__ import annotations

import time

import torch

from gpu_parts.machine import peak
from gpu_parts.stage import Stage
from gpu_parts.waits import waits
from mimsuite.train.estimate import estimate

NAME = "rates"
COMPILED = "train.compile=true"
SETTINGS: tuple[tuple[str, int, tuple[str, ...]], ...] = (
    ("image/mae-vitb16-in1k", 256, ()),
    ("image/mae-vitl16-in1k", 128, ()),
    ("image/mae-vith14-in1k", 96, ()),
    ("video/videomae2-vitb16", 32, ()),
    ("points/mae-shapenet55", 128, ()),
    ("volume/nerf-mae-swin-s", 4, ()),
    ("image/mae-vitb16-in1k", 256, (COMPILED,)),
    ("points/mae-shapenet55", 128, ("train.precision=tf32",)),
    ("volume/nerf-mae-swin-s", 4, ("train.precision=tf32",)),
    ("image/mae-vitb16-in1k", 64, ()),
    ("video/videomae2-vitb16", 32, (COMPILED,)),
    ("image/mae-vitl16-in1k", 128, (COMPILED,)),
)


def run(stage: Stage) -> None:
    for name, batch, keys in stage.size(SETTINGS, SETTINGS[:7]):
        label = " ".join([name, f"batch {batch}", *keys])
        if stage.findings.missing([label]):
            with stage.findings.trying(label):
                _measure(stage, label, name, stage.size(batch, 4), keys)


def _measure(stage: Stage, label: str, name: str, batch: int, keys: tuple[str, ...]) -> None:
    if not stage.dry:
        torch._dynamo.reset()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(stage.device)
    begun = time.perf_counter()
    step = stage.stepper(name, keys, batch=batch)
    step()
    stage.settle()
    first = time.perf_counter() - begun
    times = stage.milliseconds(step, stage.size(12, 1))
    places = waits(step, stage.device)
    memory = 0.0 if stage.dry else torch.cuda.max_memory_allocated(stage.device) / 2**30
    kind = step.precision.name
    rate = 1e3 * batch / times["ms"]
    flops = estimate(step.recipe, kind).flops * rate
    stage.findings.add(
        label,
        None,
        samples_per_second=rate,
        share_of_peak=flops / peak(stage, kind),
        tflops=flops / 1e12,
        precision=kind,
        memory_gib=memory,
        first_seconds=first,
        waits=sorted(set(places)),
        **times,
    )
