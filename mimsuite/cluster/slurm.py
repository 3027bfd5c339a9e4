"""SLURM commands: submit a script, and query the state of jobs. Does not import torch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from mimsuite.errors import MimsuiteError, UserError
from mimsuite.waiting import waiting

RECORD = "job.json"  # in each run directory: the job that runs it
GONE = "gone"  # state of jobs that the controller has forgotten, some minutes after their end
_PATIENCE = 60  # seconds to wait for an answer; a busy controller is slow
_KEPT = ("SLURM_CONF", "SLURM_JWT", "SLURM_CLUSTERS")  # the user's settings, not a job's


class SlurmError(MimsuiteError):
    """SLURM does not respond."""


def send(script: Path) -> str:
    """Submit a batch script.

    Returns:
        the job's id.

    Raises:
        UserError: sbatch is not installed, or refuses the script.
    """
    if shutil.which("sbatch") is None:
        raise UserError(f"no sbatch here: send {script} from where there is one")
    done = _run(["sbatch", "--parsable", str(script)])
    if done.returncode:
        said = [line.removeprefix("sbatch: error: ") for line in done.stderr.splitlines()]
        raise UserError(f"sbatch refused {script}: {'; '.join(said) or 'it does not say why'}")
    return done.stdout.strip().partition(";")[0]  # ID or ID;CLUSTER


def job_states() -> dict[str, str] | None:
    """Job id -> state, for this user's jobs that the controller knows.

    Ids of array elements have the form ``12_0``. None: no SLURM here, or no answer.
    """
    if shutil.which("squeue") is None:
        return None
    words = ["squeue", "--noheader", "--array", "--states=all", f"--user={os.getuid()}"]
    try:
        done = _run([*words, "--format=%i %T"])
    except SlurmError:
        return None
    if done.returncode:
        return None
    return dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if " " in line)


def is_alive(state: str) -> bool:
    """Whether a job in this state runs or may still run."""
    return state in ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "REQUEUED", "SUSPENDED")


def job_of(run: Path) -> str | None:
    """The job of a run directory: the last one that started, or else was submitted."""
    try:
        lines = (run / "job.log").read_text(encoding="utf-8").splitlines()
        return lines[-1].split()[2]  # TIME job ID start N: ...
    except (OSError, ValueError, IndexError):
        pass
    try:
        return str(json.loads((run / RECORD).read_text(encoding="utf-8"))["job"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def outside_of_jobs(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without the variables of a surrounding SLURM job.

    A new job would inherit them, and srun would, for example, apply the old job's CPU binding.
    """
    if "SLURM_JOB_ID" not in environment:
        return dict(environment)
    return {
        name: value
        for name, value in environment.items()
        if name in _KEPT or not name.startswith(("SLURM_", "SRUN_", "PMI"))
    }


def _run(words: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        with waiting(f"an answer of {words[0]}"):
            return subprocess.run(
                words,
                env=outside_of_jobs(os.environ),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_PATIENCE,
            )
    except subprocess.TimeoutExpired:
        raise SlurmError(f"{words[0]}: no answer in {_PATIENCE} s: is SLURM up?") from None
