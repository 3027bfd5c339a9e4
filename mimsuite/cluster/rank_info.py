"""Rank, world size and address of this process, from the launcher's environment variables.

Sources, in this order; only the first one present is used:

1. ``RANK``, ``WORLD_SIZE`` ...: torchrun, Kubernetes' PyTorchJob, custom wrappers.
2. An MPI launcher, mpirun or mpiexec: ``OMPI_COMM_WORLD_*``, ``MV2_COMM_WORLD_*``, ``PMI_*``.
3. A SLURM step, started by srun.
4. None: a single process.

An incomplete set of variables is an error: guessing the rest could start a run that hangs, or
several runs that overwrite each other.

Does not import torch, because it runs before torch is imported.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from mimsuite.errors import UserError
from mimsuite.waiting import waiting

_log = logging.getLogger(__name__)

_TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_SLURM = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID")
# Step ids of processes not started by srun: salloc's interactive step, batch script, node logins.
_INTERACTIVE, _BATCH, _EXTERN = 0xFFFF_FFFA, 0xFFFF_FFFB, 0xFFFF_FFFC
_FIRST_PORT, _PORTS = 20_000, 20_000  # range of ports; a job's port is computed from its number


@dataclass(frozen=True)
class RankInfo:
    """Rank information of this process.

    Attributes:
        rank: number from 0, below ``world``, the number of processes.
        local_rank: number on this machine, which selects the device.
        address, port: where rank 0 listens; unused by a single process.
        launcher: ``torchrun`` (or a launcher that sets the same variables), ``SLURM``, ``MPI``, or
            "" for none.
        rule: how ``local_rank`` was inferred, if no variable gives it.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    address: str = ""
    port: int = 0
    launcher: str = ""
    rule: str = ""


class _Mpi(NamedTuple):
    """Names of an MPI launcher's variables."""

    name: str
    rank: str
    world: str
    local_rank: str


_MPI = (
    _Mpi("Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    _Mpi("MVAPICH", "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_LOCAL_RANK"),
    _Mpi("MPI", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),  # MPICH, Intel MPI
)


def find_rank_info(environment: Mapping[str, str] | None = None) -> RankInfo:
    """Rank information for commands that run on several ranks.

    Raises:
        UserError: variables are missing or not numbers, or this is a single process in a SLURM job
            of several tasks or nodes.
    """
    environment = os.environ if environment is None else environment
    info = _given(environment)
    if info is not None and info.world > 1:
        return info
    _look_for_idle_tasks(environment, started=info is not None)
    return info or RankInfo()


def require_single_process() -> None:
    """Refuse to run several copies of a single-process command.

    Raises:
        UserError: a launcher started this process as one of several.
    """
    info = _given(os.environ)
    if info is not None and info.world > 1:
        once = f"`srun -N1 -n1 {_command()}`" if info.launcher == "SLURM" else f"`{_command()}`"
        by = f"WORLD_SIZE={info.world}" if info.launcher == "torchrun" else info.launcher
        raise UserError(
            f"started as one of {info.world} processes ({by}), but this command is the work of "
            f"one: start it once, as in {once}"
        )


def has_peers() -> bool:
    """Whether a launcher started this process as one of several."""
    info = _given(os.environ)
    return info is not None and (info.world > 1 or "RANK" in os.environ)


def _given(environment: Mapping[str, str]) -> RankInfo | None:
    """Rank information from a launcher; None without a launcher."""
    # MASTER_* alone do not count: users often export them permanently.
    if any(name in environment for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")):
        return _of_torchrun(environment)
    return _of_mpi(environment) or _of_slurm(environment)


# --- torchrun, and launchers that set the same variables ---


def _of_torchrun(environment: Mapping[str, str]) -> RankInfo:
    alone = environment.get("RANK") == "0" and environment.get("WORLD_SIZE") == "1"
    _require(environment, _TORCHRUN[:2] if alone else _TORCHRUN)
    rank, world = _number(environment, "RANK"), _number(environment, "WORLD_SIZE")
    if not 0 <= rank < world:
        raise UserError(f"RANK={rank} is none of WORLD_SIZE={world}, which are numbered from 0")
    local_rank, rule = _local_rank(environment, rank, world)
    return RankInfo(
        rank=rank,
        world=world,
        local_rank=local_rank,
        address=environment.get("MASTER_ADDR", ""),
        port=_number(environment, "MASTER_PORT"),
        launcher="torchrun",
        rule=rule,
    )


def _local_rank(environment: Mapping[str, str], rank: int, world: int) -> tuple[int, str]:
    """This process's number on its machine, and the rule by which it was inferred.

    Raises:
        UserError: it cannot be inferred.
    """
    if environment.get("LOCAL_RANK"):
        return _number(environment, "LOCAL_RANK"), ""
    if world == 1:
        return 0, "0, the only process"
    if "1" in (environment.get("LOCAL_WORLD_SIZE"), environment.get("PET_NPROC_PER_NODE")):
        return 0, "0, one process a machine"
    for names in _MPI:
        if environment.get(names.rank) == str(rank) and environment.get(names.local_rank):
            return _number(environment, names.local_rank), f"{names.local_rank}"
    if environment.get("SLURM_PROCID") == str(rank) and environment.get("SLURM_LOCALID"):
        return _number(environment, "SLURM_LOCALID"), "SLURM_LOCALID"
    if "KUBERNETES_SERVICE_HOST" in environment:
        return 0, "0, one process a pod, as PyTorchJob starts them"
    raise UserError(
        "RANK and WORLD_SIZE are set but not LOCAL_RANK, this process's number on its machine: set "
        "LOCAL_RANK=0 where each machine runs one process, LOCAL_RANK=$OMPI_COMM_WORLD_LOCAL_RANK "
        "in a script that mpirun starts"
    )


# --- MPI -----------------------------------------------------------------------------------------


def _of_mpi(environment: Mapping[str, str]) -> RankInfo | None:
    """Rank information from MPI; None without MPI, or under srun, which also sets PMI variables."""
    for names in _MPI:
        world, rank = environment.get(names.world), environment.get(names.rank)
        if world is None and rank is None:
            continue
        if rank == environment.get("SLURM_PROCID") and world == _step_tasks(environment):
            return None
        _require(environment, (names.rank, names.world), names.name)
        return _of_mpi_rank(environment, names)
    if environment.get("PMIX_RANK") and not _is_step(environment):
        raise UserError(
            "an MPI launcher started this process (PMIX_RANK is set), but does not say of how "
            "many: set RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT for each process"
        )
    return None


def _of_mpi_rank(environment: Mapping[str, str], names: _Mpi) -> RankInfo:
    world = _number(environment, names.world)
    if world > 1:
        where = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not environment.get(name)]
        if where:
            raise UserError(
                f"{names.name} started this process as one of {world}, but {' and '.join(where)} "
                f"do not say where they meet: `export MASTER_ADDR=HOST MASTER_PORT=29500` before "
                f"(Open MPI: also `mpirun -x MASTER_ADDR -x MASTER_PORT`), HOST being the machine "
                f"of rank 0; on one machine `--procs {world}` needs no mpirun"
            )
        _require(environment, (names.rank, names.world, names.local_rank), names.name)
    return RankInfo(
        rank=_number(environment, names.rank),
        world=world,
        local_rank=_number(environment, names.local_rank),
        address=environment.get("MASTER_ADDR", ""),
        port=_number(environment, "MASTER_PORT"),
        launcher="MPI",
    )


# --- SLURM ---------------------------------------------------------------------------------------


def _of_slurm(environment: Mapping[str, str]) -> RankInfo | None:
    """Rank information from SLURM; None unless srun started this task (not a shell or script)."""
    if not _is_step(environment):
        return None
    # The step's number of tasks before the job's: `srun -n1` in a job of four is one process.
    tasks = int(_step_tasks(environment))
    if tasks == 1:
        return RankInfo()
    _require(environment, _SLURM, "SLURM")
    rank = _number(environment, "SLURM_PROCID")
    if not 0 <= rank < tasks:
        raise UserError(
            f"SLURM_PROCID={rank} is none of the step's {tasks} tasks: the variables of several "
            f"shells are mixed; start a new one, or unset those that begin with SLURM_"
        )
    return RankInfo(
        rank=rank,
        world=tasks,
        local_rank=_number(environment, "SLURM_LOCALID"),
        address=environment.get("MASTER_ADDR") or _first_host(environment),
        port=_slurm_port(environment),
        launcher="SLURM",
    )


def _is_step(environment: Mapping[str, str]) -> bool:
    """Whether srun started this process or one of its ancestors."""
    return bool(environment.get("SLURM_STEP_ID")) and _number(environment, "SLURM_STEP_ID") < (
        _INTERACTIVE
    )


def _step_tasks(environment: Mapping[str, str]) -> str:
    for name in ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"):
        if environment.get(name):
            return str(_number(environment, name))
    return "1"


def _look_for_idle_tasks(environment: Mapping[str, str], *, started: bool) -> None:
    """Detect a single process in a job of several tasks or nodes, which leaves the others idle.

    In a shell of the job this may be intended, so it is only a warning.

    Args:
        started: whether a launcher started this process, as the only one.

    Raises:
        UserError: in a batch script.
    """
    if not environment.get("SLURM_JOB_ID"):  # variables left over from another shell
        return
    tasks = _number(environment, "SLURM_NTASKS", 1)
    nodes = _number(environment, "SLURM_NNODES", 1)
    size = f"{tasks} tasks" if tasks > 1 else f"{nodes} nodes"
    if started:  # `srun -n1` asks for it, but one task on several nodes is a mistake
        if nodes > 1 and _is_step(environment) and tasks == 1:
            _warn_once(f"this step has {nodes} nodes, but one task: give srun --ntasks-per-node")
        return
    if max(tasks, nodes) == 1:
        return
    step = _number(environment, "SLURM_STEP_ID", _BATCH)
    if step in (_INTERACTIVE, _EXTERN):
        _warn_once(f"this SLURM job has {size}, here runs one process: `srun {_command()}` has all")
        return
    per_node = "" if tasks > 1 else "--ntasks-per-node=N "
    raise UserError(
        f"this SLURM job has {size}, but this process is none of them: start it with srun, as in "
        f"`srun {per_node}{_command()}`, or once, `srun -N1 -n1 {_command()}`; if the variables "
        f"are left over from another shell, `unset SLURM_JOB_ID`"
    )


@cache
def _warn_once(text: str) -> None:
    _log.warning("%s", text)


def _command() -> str:
    """The command line, quoted for copying."""
    return shlex.join(["mimsuite", *sys.argv[1:]])


def _require(environment: Mapping[str, str], names: tuple[str, ...], launcher: str = "") -> None:
    """Refuse an incomplete set of variables; without a launcher, anything may have set them."""
    missing = [name for name in names if not environment.get(name)]
    if missing:
        present = [
            name if environment[name] else f"an empty {name}"
            for name in (*names, "LOCAL_RANK")
            if name in environment
        ]
        start = f"{launcher} set" if launcher else "the environment has"
        raise UserError(
            f"{start} {', '.join(present)} but not {', '.join(missing)}: set all of them, or none "
            f"for a single process"
        )


def _number(environment: Mapping[str, str], name: str, absent: int = 0) -> int:
    """The number in a variable; ``absent`` if it is unset or empty."""
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
    """The first node of the step, by scontrol, or by our own parser where scontrol is missing."""
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST") or ""
    if not nodes:
        raise UserError("SLURM names no nodes: set MASTER_ADDR to the host of the first task")
    try:
        words = ["scontrol", "show", "hostnames", nodes]
        with waiting("an answer of scontrol"):
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
