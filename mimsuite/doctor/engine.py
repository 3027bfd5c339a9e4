"""Checks of torch, its devices and its distributed backends, in a child process.

So a torch that crashes at import or hangs on a broken driver is a finding and does not end the
doctor.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mimsuite.doctor.findings import Finding

_PATIENCE = 180  # seconds; the first import from a network disk is slow
_SLOW_IMPORT = 30.0  # seconds above which an import counts as slow
_BF16 = ("-m", "mimsuite.train.cpu_bf16")
_QUESTIONS = """
import json, time
begun = time.monotonic()
import torch, torch.distributed as dist
seconds = time.monotonic() - begun
import torchvision.ops
cuda = torch.cuda.is_available()
devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
print(json.dumps({
    "import_seconds": seconds,
    "built_for_cuda": torch.version.cuda,
    "devices": [{"name": d.name, "memory_bytes": d.total_memory} for d in devices],
    "bf16": cuda and torch.cuda.is_bf16_supported(including_emulation=False),
    "mps": torch.backends.mps.is_available(),
    "distributed": dist.is_available(),
    "gloo": dist.is_available() and dist.is_gloo_available(),
    "nccl": dist.is_available() and dist.is_nccl_available(),
}))
"""


def check_engine(command: str = _QUESTIONS) -> list[Finding]:
    """Check that torch and torchvision load, and their devices and backends.

    Args:
        command: Python code for the child; prints one JSON object.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-c", command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
        )
    except subprocess.TimeoutExpired:
        mend = "a driver or a network disk hangs: try `python -c 'import torch'`"
        return [Finding("import torch", "missing", f"not done in {_PATIENCE} s", mend)]
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        mend = "pip install --force-reinstall torch torchvision, both from one index"
        return [Finding("import torch", "missing", said, mend)]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    findings = [_imported(found), _devices(found), _distributed(found)]
    return findings if found["devices"] or found["mps"] else [*findings, check_bf16()]


def check_bf16(command: Sequence[str] = _BF16) -> Finding:
    """Whether bf16 pays on this CPU: measured for a ViT-B block, or read from the cache.

    Args:
        command: arguments of a Python that prints one JSON object.
    """
    try:
        done = subprocess.run(
            [sys.executable, *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
        )
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.TimeoutExpired, ValueError, IndexError):
        return Finding("bf16", "note", "could not be measured", "use train.precision=fp32")
    chosen = "bf16" if found["pays"] else "fp32"
    value = f"{found['line']}: train.precision=auto is {chosen}"
    return Finding("bf16", "ok", value, facts=found)


def _imported(found: dict[str, Any]) -> Finding:
    seconds = found["import_seconds"]
    slow = seconds > _SLOW_IMPORT
    mend = "put the environment on a local disk: every rank of a job imports it" if slow else ""
    return Finding("import torch", "note" if slow else "ok", f"{seconds:.1f} s", mend, found)


def _devices(found: dict[str, Any]) -> Finding:
    if found["devices"]:
        names = [f"{d['name']} {d['memory_bytes'] / 1e9:.0f} GB" for d in found["devices"]]
        value = ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))
        if found["bf16"]:
            return Finding("devices", "ok", f"{value}, bf16")
        return Finding("devices", "note", f"{value}, without bf16", "use train.precision=fp16")
    if found["mps"]:
        return Finding("devices", "ok", "Apple MPS")
    if Path("/dev/nvidia0").exists():
        built = found["built_for_cuda"]
        value = "a GPU is there, torch does not reach it"
        mend = f"torch is built for CUDA {built}: update the driver, see nvidia-smi"
        if built is None:
            mend = "this torch is built without CUDA: install one of pytorch.org's CUDA builds"
        return Finding("devices", "missing", value, mend)
    return Finding("devices", "note", "no GPU: the CPU", "enough for the tiny recipes")


def _distributed(found: dict[str, Any]) -> Finding:
    if not found["distributed"]:
        mend = "another build of torch trains on several devices"
        return Finding("distributed", "note", "this torch has no torch.distributed", mend)
    backends = [name for name in ("gloo", "nccl") if found[name]]
    value = f"torch.distributed with {', '.join(backends) or 'no backend'}"
    if found["devices"] and not found["nccl"]:
        return Finding("distributed", "note", value, "several GPUs need a torch with nccl")
    return Finding("distributed", "ok", value)
