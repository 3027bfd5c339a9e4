"""Cores and memory that the machine or container allows this process. Does not import torch."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_UNLIMITED = 1 << 60  # cgroups report values above this for "no limit"


def usable_cores() -> float:
    """Cores that this process may use, by machine size, CPU affinity and cgroup quota."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return min(float(cores), cpu_quota() or cores)


def cpu_quota(cgroups: Path = _CGROUPS, own: str | None = None) -> float | None:
    """CPU quota of the cgroup, in cores; ``None``: no limit, or no cgroups.

    Args:
        cgroups: mount point of the cgroups.
        own: this process's cgroup; ``None`` = read it from /proc.
    """
    found = []
    for folder in _folders(cgroups, "", own):
        words = _words(folder / "cpu.max")
        if len(words) == 2 and words[0] != "max":
            found.append(int(words[0]) / int(words[1]))
    for folder in _folders(cgroups / "cpu", "cpu", own):
        quota, period = (_words(folder / f"cpu.cfs_{n}_us") for n in ("quota", "period"))
        if quota and period and int(quota[0]) > 0:
            found.append(int(quota[0]) / int(period[0]))
    return min(found, default=None)


def memory_limit(cgroups: Path = _CGROUPS, own: str | None = None) -> int | None:
    """Memory limit of the cgroup in bytes; ``None``: no limit, or no cgroups."""
    found = []
    for folder in _folders(cgroups, "", own):
        found += [int(word) for word in _words(folder / "memory.max") if word != "max"]
    for folder in _folders(cgroups / "memory", "memory", own):
        found += [int(word) for word in _words(folder / "memory.limit_in_bytes")]
    return min((limit for limit in found if limit < _UNLIMITED), default=None)


def usable_memory() -> int:
    """Bytes of memory available to this process now."""
    available = _meminfo().get("MemAvailable", 0)
    limit = memory_limit()
    return available if limit is None else min(available, limit)


def total_memory() -> int:
    """The machine's memory in bytes."""
    return _meminfo().get("MemTotal", 0)


def _folders(root: Path, controller: str, own: str | None) -> list[Path]:
    """Folders of a cgroup and its ancestors, of which the lowest limit applies."""
    if own is None:
        own = _own_cgroup(controller)
    path = root / own.lstrip("/")
    above = [path, *path.parents]
    return [folder for folder in above if folder == root or root in folder.parents]


def _own_cgroup(controller: str) -> str:
    """This process's cgroup; the controller is "" for cgroups version 2."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return "/"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return path
    return "/"


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def _meminfo() -> dict[str, int]:
    """The entries of /proc/meminfo in bytes."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines)
    return {name: 1024 * int(text.split()[0]) for name, _, text in pairs}
