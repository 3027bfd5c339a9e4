"""Cores, memory and limits of this machine or container, and SLURM."""

from __future__ import annotations

import os
import resource
import shutil
from pathlib import Path

from mimsuite.cluster import find_place
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
_IN_FLIGHT = 3  # micro-batches of each worker: two prepared ahead, one being handed over
_USUAL_BATCH = 256 * 3 * 224 * 224  # bytes: images of a large micro-batch
_SHARDS = 256  # files of shards that a process keeps open
_OTHER_FILES = 128  # libraries, logs, pipes and sockets to workers


def check_machine() -> list[Finding]:
    """Findings about this machine."""
    return [_cores(), _memory(), *check_limits(), _compiler(), _slurm()]


def check_limits(workers: int = 2, batch_bytes: int = _USUAL_BATCH) -> list[Finding]:
    """Shared memory and open files, against what a loader needs.

    Args:
        workers: ``data.workers``.
        batch_bytes: of the views of a micro-batch, as workers hand it over.
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
    """Workers hand batches over in shared memory; docker gives a container 64 MB of it."""
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
    """Open shards, libraries, and a descriptor for each tensor that a worker hands over."""
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
    """Whether jobs can be sent from here, and how this process was started."""
    programs = {name: shutil.which(name) is not None for name in ("sbatch", "srun", "scontrol")}
    job = os.environ.get("SLURM_JOB_ID")
    facts = {**programs, "job": job}
    try:
        place = find_place()
    except UserError as error:
        return Finding("SLURM", "note", str(error), "", facts)
    if place.world > 1:
        rule = f"; LOCAL_RANK by the rule: {place.rule}" if place.rule else ""
        value = f"rank {place.rank} of {place.world}, started by {place.launcher}{rule}"
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
