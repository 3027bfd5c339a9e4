"""Card, versions, and the rate of matrix products that shares of the peak refer to."""

from __future__ import annotations

import os
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from gpu_parts.stage import Stage
from mimsuite.report.environment import cpu_name
from mimsuite.train.matmul_rate import matrix_rate
from mimsuite.train.precision import Precision

NAME = "machine"
PACKAGES = ("torch", "torchvision", "timm", "numpy", "pydantic", "safetensors", "simplejpeg")
DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}


def run(stage: Stage) -> None:
    import mimsuite.train.run  # noqa: F401  all that training imports must be there

    facts: dict[str, Any] = {"device": cpu_name(), "python": sys.version.split()[0]}
    facts["cores"] = len(os.sched_getaffinity(0))
    for package in PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = "not installed"
    if not stage.dry:
        facts["device"] = torch.cuda.get_device_name(stage.device)
        facts |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    stage.findings.add("machine", True, **facts)
    rates = {name: peak(stage, name) / 1e12 for name in stage.size([*DTYPES], ["fp32"])}
    stage.findings.add("matrix products, TFLOP/s", None, **rates)


def peak(stage: Stage, precision: str) -> float:
    """FLOP/s of matrix products."""
    Precision(precision, stage.device)  # sets what float32 products are made of
    return matrix_rate(stage.device, DTYPES[precision], wall=True)
