"""``env.json``: what a run ran on. No environment variables, so no secrets."""

from __future__ import annotations

import platform
import socket
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import mimsuite
from mimsuite.text import now

_PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow", "safetensors", "webdataset")


def environment() -> dict[str, Any]:
    """Versions, devices, host and the git commit of the working directory."""
    return {
        "time": now(),
        "mimsuite": mimsuite.__version__,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "hostname": socket.gethostname(),
        "cpu": cpu_name(),
        "devices": _device_names(),
        "cuda": _cuda_version(),
        "git_commit": _git_commit(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def cpu_name() -> str:
    """The processor's model, or where that is not known its architecture."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _device_names() -> list[str]:
    import torch

    if torch.cuda.is_available():
        return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return ["Apple MPS"] if torch.backends.mps.is_available() else []


def _cuda_version() -> str | None:
    import torch

    return torch.version.cuda if torch.cuda.is_available() else None


def _git_commit() -> str | None:
    """Commit of the working directory, with ``-dirty`` where tracked files differ from it."""
    # No monitor program that the repository's own settings may name is started.
    command = ["git", "-c", "core.fsmonitor=false", "describe", "--always", "--dirty"]
    command += ["--abbrev=40", "--exclude=*"]
    try:
        result = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None if result.returncode == 0 else None
