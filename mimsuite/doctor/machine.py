"""Checks of cores, memory, limits and SLURM on this machine or container."""

from __future__ import annotations

import os
import resource
import shutil
from pathlib import Path

from mimsuite.cluster import find_rank_info
from mimsuite.cluster.host import (
    cpu_quota,
    memory_limit,
    total_memory,
    usable_cores,
    usable_memory,
)
from mimsuite.doctor.findings import Finding
from mimsuite.errors import UserError

_SHARED_MEMORY = Path("/dev/shm")
_IN_FLIGHT = 3  # micro-batches per worker: two prefetched, one in transfer
_USUAL_BATCH = 256 * 3 * 224 * 224  # bytes of the images of a large micro-batch
_SHARDS = 256  # shard files that a process keeps open
_OTHER_FILES = 128  # open files for libraries, logs, pipes and sockets


def check_machine() -> list[Finding]:
    """All checks of this machine."""
    return [_cores(), _memory(), *check_limits(), _compiler(), _slurm()]


def check_limits(workers: int = 2, batch_bytes: int = _USUAL_BATCH) -> list[Finding]:
    """Compare shared memory and open-file limits with the needs of a loader.

    Args:
        workers: ``data.workers``.
        batch_bytes: size of a micro-batch's views, as workers pass them.
    """
    return [_shared_memory(workers, batch_bytes), _files(workers)]


def _cores() -> Finding:
    visible, usable = os.cpu_count() or 1, usable_cores()
    facts = {"visible": visible, "usable": usable, "quota": cpu_quota()}
    if usable >= visible:
        return Finding("cores", "ok", f"{visible}", facts=facts)
    share = max(1, int(usable))
    mend = f"set train.threads and data.workers so that they are {share} together"
    value = f"{usable:g} of the {visible} that programs see"
    return Finding("cores", "note", value, mend, facts)


def _memory() -> Finding:
    total, limit = total_memory(), memory_limit()
    free = usable_memory()
    facts = {"total_bytes": total, "limit_bytes": limit, "usable_bytes": free}
    of = f"{min(total, limit or total) / 1e9:.1f} GB"
    return Finding("memory", "ok", f"{free / 1e9:.1f} GB free of {of}", facts=facts)


def _shared_memory(workers: int, batch_bytes: int) -> Finding:
    """Check shared memory, through which workers pass batches; docker's default is 64 MB."""
    if not _SHARED_MEMORY.is_dir():
        return Finding("shared memory", "ok", "not limited here")
    free, need = shutil.disk_usage(_SHARED_MEMORY).free, max(1, workers) * _IN_FLIGHT * batch_bytes
    facts = {"free_bytes": free, "needed_bytes": need, "workers": workers}
    value = f"{free / 1e6:.0f} MB free, {workers} workers may take {need / 1e6:.0f} MB"
    if free >= need:
        return Finding("shared memory", "ok", value, facts=facts)
    gigabytes = -(-2 * need >> 30)
    mend = f"docker run --shm-size={gigabytes}g, or data.workers=0"
    return Finding("shared memory", "note" if workers == 0 else "missing", value, mend, facts)


def _files(workers: int) -> Finding:
    """Check the limit of open files: shards, libraries, and one per tensor from a worker."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = _SHARDS + _OTHER_FILES + 8 * workers
    facts = {"soft": soft, "hard": hard, "needed": need}
    value = f"{soft} open files, training may need {need}"
    if soft == resource.RLIM_INFINITY or soft >= need:
        return Finding("file descriptors", "ok", value, facts=facts)
    mend = f"ulimit -n {min(4096, hard) if hard > 0 else 4096}"
    return Finding("file descriptors", "missing", value, mend, facts)


def _compiler() -> Finding:
    found = next((name for name in ("g++", "clang++") if shutil.which(name)), None)
    if found:
        return Finding("C++ compiler", "ok", found)
    value, mend = "none: train.compile=true needs one", "apt-get install g++"
    return Finding("C++ compiler", "note", value, mend)


def _slurm() -> Finding:
    """Check whether jobs can be submitted here, and how this process was started."""
    programs = {name: shutil.which(name) is not None for name in ("sbatch", "srun", "scontrol")}
    job = os.environ.get("SLURM_JOB_ID")
    facts = {**programs, "job": job}
    try:
        info = find_rank_info()
    except UserError as error:
        return Finding("SLURM", "note", str(error), "", facts)
    if info.world > 1:
        rule = f"; LOCAL_RANK by the rule: {info.rule}" if info.rule else ""
        value = f"rank {info.rank} of {info.world}, started by {info.launcher}{rule}"
        return Finding("SLURM", "ok", value, facts=facts)
    if job:
        return Finding("SLURM", "ok", f"in job {job}", facts=facts)
    there = [name for name, is_there in programs.items() if is_there]
    if len(there) == len(programs):
        return Finding("SLURM", "ok", "sbatch, srun and scontrol are there", facts=facts)
    if not there:
        return Finding("SLURM", "ok", "not on this machine", facts=facts)
    lacking = ", ".join(name for name in programs if name not in there)
    return Finding("SLURM", "note", f"{lacking} not found", "apt-get install slurm-client", facts)
