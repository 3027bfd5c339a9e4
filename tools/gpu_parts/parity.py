"""The device computes what the host does: keyed noise, masks and groups to the bit, and one step in
each precision within its rounding."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from gpu_parts.stage import Stage
from mimsuite import config
from mimsuite.batch import Batch
from mimsuite.masking import TokenMask, build_sampler
from mimsuite.methods import Method, build
from mimsuite.noise import Noise
from mimsuite.targets import chamfer
from mimsuite.tokens import group
from mimsuite.train.blocks import prepare_blocks
from mimsuite.train.precision import Precision
from mimsuite.train.random_batches import random_batch, shapes_of
from mimsuite.train.step import run_method

NAME = "parity"
MAE = "image/mae-vitb16-in1k"
MASKED = (MAE, "image/cae-base-in1k", "video/videomae2-vitb16")
CPU = torch.device("cpu")
# Relative difference to fp32 on the CPU that is allowed: of the loss, of all gradients (L2).
ALLOWED = {"fp32": (1e-5, 1e-3), "tf32": (1e-3, 2e-2), "bf16": (1e-2, 5e-2), "fp16": (1e-2, 5e-2)}


def run(stage: Stage) -> None:
    with stage.findings.trying("noise, masks and groups"):
        _same_numbers(stage)
    resolved = config.load(MAE, smoke=stage.dry)
    torch.manual_seed(0)
    start = build(resolved.recipe).train()
    batch = random_batch(shapes_of(resolved.recipe), 4, CPU)
    wanted = _step(start, batch, "fp32", CPU)
    kinds = [(kind, False) for kind in stage.size([*ALLOWED], ["fp32", "bf16"])]
    for kind, compiled in [*kinds, ("fp32", True), (stage.size("bf16", "fp32"), True)]:
        name = f"{kind}{', compiled' if compiled else ''}"
        if not stage.findings.missing([name]):
            continue
        with stage.findings.trying(name):
            loss, gradient = _step(start, batch, kind, stage.device, compiled=compiled)
            off = abs(loss - wanted[0]) / wanted[0]
            turned = float((gradient - wanted[1]).norm() / wanted[1].norm())
            low, high = ALLOWED[kind]
            stage.findings.add(name, off < low and turned < high, loss=off, gradients=turned)


def _step(
    start: Method, batch: Batch, kind: str, device: torch.device, *, compiled: bool = False
) -> tuple[float, Tensor]:
    """Loss, and all gradients as one float64 vector on the CPU."""
    method, rows = copy.deepcopy(start).to(device), batch.to(device)
    train = method.recipe.train.model_copy(update={"compile": compiled})
    prepare_blocks(method, train, device)
    precision = Precision(kind, device)
    with precision.autocast():
        loss = run_method(method, rows, Noise(0, 0, rows.index, batch.index)).loss
    precision.backward(loss)
    scale = 1.0 if precision.scaler is None else precision.scaler.get_scale()
    gradients = [
        p.grad.double().flatten() / scale for p in method.parameters() if p.grad is not None
    ]
    return float(loss), torch.cat(gradients).cpu()


def _same_numbers(stage: Stage) -> None:
    index = torch.arange(64)
    here, there = Noise(7, 3, index), Noise(7, 3, index.to(stage.device), index)
    same = {"noise": _equal(here.rows("mask", 196), there.rows("mask", 196))}
    for name in MASKED:
        recipe = config.load(name).recipe
        sampler, grid = build_sampler(recipe.mask), recipe.model.encoder.grid
        same[f"masks of {name}"] = _same_mask(
            sampler.sample(here, grid), sampler.sample(there, grid)
        )
    chance = torch.Generator().manual_seed(0)
    clouds = torch.randn(16, 1024, 3, generator=chance)
    ours, theirs = group(clouds, 64, 32), group(clouds.to(stage.device), 64, 32)
    same["farthest points"] = _equal(ours.center_ids, theirs.center_ids)
    same["neighbours"] = _equal(ours.ids, theirs.ids)
    pairs = [torch.randn(64, 32, 3, generator=chance) for _ in "ab"]
    distances = [float(chamfer(*(p.to(d) for p in pairs))) for d in (CPU, stage.device)]
    same["chamfer"] = abs(distances[0] - distances[1]) < 1e-6
    differ = [name for name, equal in same.items() if not equal]
    stage.findings.add("noise, masks and groups", not differ, differ=differ)


def _equal(ours: Tensor, theirs: Tensor) -> bool:
    return torch.equal(ours, theirs.cpu())


def _same_mask(ours: TokenMask, theirs: TokenMask) -> bool:
    return _equal(ours.visible, theirs.visible) and _equal(ours.masked, theirs.masked)
