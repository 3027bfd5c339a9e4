"""Where a process stands among its peers, as the launcher's environment says.

Three sources, the first that is there counts, and it counts whole: torchrun's variables, a SLURM
step, or nothing (a single process). A group of variables that is there only in part is an error:
guessing the rest would start a run that waits for ever.

Torch-free: it is read before torch is imported.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from mimsuite.errors import UserError

_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_SLURM = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NODEID")
_FIRST_PORT, _PORTS = 20_000, 20_000  # a job's own port, from its number


@dataclass(frozen=True)
class Place:
    """A process among its peers.

    Attributes:
        rank: from 0, of ``world`` processes.
        local_rank: its number on this machine, and so its device.
        address, port: where rank 0 waits for the others; unused by a single process.
        launcher: ``torchrun`` (or what sets the same variables), ``SLURM``, or "" for none.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    address: str = ""
    port: int = 0
    launcher: str = ""


def find_place(environment: Mapping[str, str] | None = None) -> Place:
    """The place that the launcher gave this process.

    Raises:
        UserError: variables are missing or no numbers, or a SLURM job was not started by srun.
    """
    environment = os.environ if environment is None else environment
    # MASTER_* alone say nothing of peers: users export them once for all.
    if any(name in environment for name in _TORCHRUN[:3]):
        _require(environment, _TORCHRUN, "torchrun")
        return Place(
            rank=_number(environment, "RANK"),
            world=_number(environment, "WORLD_SIZE"),
            local_rank=_number(environment, "LOCAL_RANK"),
            address=environment["MASTER_ADDR"],
            port=_number(environment, "MASTER_PORT"),
            launcher="torchrun",
        )
    tasks = _number(environment, "SLURM_NTASKS", 1)
    if tasks > 1 and "SLURM_STEP_ID" not in environment:
        raise UserError(
            f"this SLURM job has {tasks} tasks, but this process is none of them: start it with "
            f"srun, as in `srun mimsuite pretrain RECIPE`"
        )
    if tasks > 1:
        _require(environment, _SLURM, "SLURM")
        return Place(
            rank=_number(environment, "SLURM_PROCID"),
            world=tasks,
            local_rank=_number(environment, "SLURM_LOCALID"),
            address=environment.get("MASTER_ADDR") or _first_host(environment),
            port=_slurm_port(environment),
            launcher="SLURM",
        )
    return Place()


def require_single_process() -> None:
    """Refuse a launch that starts several copies of a command that is one process's work.

    Raises:
        UserError: the launcher gave this process peers.
    """
    place = find_place()
    if place.world > 1:
        raise UserError(
            f"started as one of {place.world} processes, but this command runs on one: start one"
        )


def _require(environment: Mapping[str, str], names: tuple[str, ...], launcher: str) -> None:
    missing = [name for name in names if not environment.get(name)]
    if missing:
        raise UserError(
            f"{launcher} set {', '.join(name for name in names if name not in missing)} but not "
            f"{', '.join(missing)}: set all of them, or none for a single process"
        )


def _number(environment: Mapping[str, str], name: str, absent: int = 0) -> int:
    """The number in a variable; ``absent`` where it is not set or empty."""
    try:
        return int(environment.get(name) or absent)
    except ValueError:
        raise UserError(f"{name}={environment[name]} is not a whole number") from None


def _slurm_port(environment: Mapping[str, str]) -> int:
    if environment.get("MASTER_PORT"):
        return _number(environment, "MASTER_PORT")
    job = _number(environment, "SLURM_JOB_ID", 0)
    step = _number(environment, "SLURM_STEP_ID", 0)
    return _FIRST_PORT + (job + step) % _PORTS


def _first_host(environment: Mapping[str, str]) -> str:
    """The first node of the step, by scontrol, or by hand where it is missing (containers)."""
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST") or ""
    if not nodes:
        raise UserError("SLURM names no nodes: set MASTER_ADDR to the host of the first task")
    try:
        words = ["scontrol", "show", "hostnames", nodes]
        done = subprocess.run(words, capture_output=True, text=True, timeout=30)
        if done.returncode == 0 and done.stdout.split():
            return done.stdout.split()[0]
    except (OSError, subprocess.TimeoutExpired):
        pass
    return first_of(nodes)


def first_of(nodes: str) -> str:
    """The first host of a SLURM node list: ``gpu[03-05,9],login1`` -> ``gpu03``."""
    found = re.match(r"([^\[,]*)(?:\[([^\]]*)\])?([^,\[]*)", nodes)
    assert found is not None
    prefix, ranges, suffix = found.groups()
    if ranges is None:
        return prefix
    return prefix + re.split(r"[,-]", ranges)[0] + suffix
