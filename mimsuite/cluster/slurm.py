"""Talking to SLURM: sending a script, and what became of jobs. Torch-free."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from mimsuite.errors import MimsuiteError, UserError
from mimsuite.waiting import waiting

RECORD = "job.json"  # in each run directory: which job runs it
GONE = "gone"  # the controller forgets jobs some minutes after their end
_PATIENCE = 60  # seconds; a busy controller takes its time
_KEPT = ("SLURM_CONF", "SLURM_JWT", "SLURM_CLUSTERS")  # the user's settings, not a job's


class SlurmError(MimsuiteError):
    """SLURM does not answer."""


def send(script: Path) -> str:
    """Queue a batch script.

    Returns:
        the job's id.

    Raises:
        UserError: there is no sbatch here, or it refuses the script.
    """
    if shutil.which("sbatch") is None:
        raise UserError(f"no sbatch here: send {script} from where there is one")
    done = _run(["sbatch", "--parsable", str(script)])
    if done.returncode:
        said = [line.removeprefix("sbatch: error: ") for line in done.stderr.splitlines()]
        raise UserError(f"sbatch refused {script}: {'; '.join(said) or 'it does not say why'}")
    return done.stdout.strip().partition(";")[0]  # ID or ID;CLUSTER


def job_states() -> dict[str, str] | None:
    """The state of each of this user's jobs that the controller knows, by id.

    Elements of arrays are ``12_0``. None: no SLURM here, or no answer.
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
    """Whether a job in this state runs, or still may."""
    return state in ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "REQUEUED", "SUSPENDED")


def job_of(run: Path) -> str | None:
    """The job that works in a run directory, or did: the last that started, or was submitted."""
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
    """The environment without what SLURM set for a job in which this may run.

    A new job would inherit it, and srun would take e.g. the CPU binding of the old one.
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
