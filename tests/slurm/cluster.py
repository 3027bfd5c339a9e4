"""What the SLURM tests do to a cluster and its jobs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from safetensors.numpy import load_file

TOOL = Path(__file__).parents[2] / "tools" / "local_slurm.py"
# Importing torch takes seconds, and a requeued job waits for six.
PATIENCE = 240.0


def tool(command: str, folder: Path, *words: str) -> None:
    subprocess.run([sys.executable, str(TOOL), command, "--dir", str(folder), *words], check=True)


class Cluster:
    """A running SLURM."""

    def __init__(self, folder: Path) -> None:
        self.environment = {
            **os.environ,
            "SLURM_CONF": f"{folder}/slurm.conf",
            "MASTER_ADDR": "127.0.0.1",
            "OMP_NUM_THREADS": "1",
            "XDG_CONFIG_HOME": str(folder.parent / "config"),
        }

    def run(self, *words: object, code: int | None = 0) -> str:
        """The stdout of a command of this cluster."""
        done = subprocess.run(
            list(map(str, words)), env=self.environment, capture_output=True, text=True, timeout=120
        )
        assert code is None or done.returncode == code, (words, done.stdout, done.stderr)
        return done.stdout if done.returncode == 0 else done.stderr

    def mimsuite(self, *words: object, code: int = 0) -> str:
        return self.run(sys.executable, "-m", "mimsuite", *words, code=code)

    def submit(self, *words: object) -> str:
        return str(json.loads(self.mimsuite("submit", *words, "--json"))["job"])

    def job(self, number: str) -> dict[str, str]:
        """What SLURM says of a job."""
        said = self.run("scontrol", "show", "job", "--oneliner", number)
        return dict(word.split("=", 1) for word in said.split() if "=" in word)

    def state(self, number: str) -> str:
        return self.job(number)["JobState"]

    def restarts(self, number: str) -> int:
        return int(self.job(number)["Restarts"])

    def ended(self, number: str) -> bool:
        return self.state(number) in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")

    def wait(self, what: str, there: Callable[[], object], run: Path, job: str = "") -> None:
        """Until something is so; fails, with what the run printed, where the job ends before."""
        deadline = time.monotonic() + PATIENCE
        while not there():
            if time.monotonic() > deadline or (job and self.ended(job) and not there()):
                said = "\n".join(file.read_text() for file in run.glob("slurm-*.out"))
                raise AssertionError(f"{what}: not in {run}\n{said}")
            time.sleep(0.1)


def rows(run: Path, name: str = "metrics") -> list[dict]:
    file = run / f"{name}.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def logged(run: Path) -> int:
    """The last step in the metrics."""
    found = rows(run)
    return found[-1]["step"] if found else 0


def saved(run: Path) -> int:
    """The newest checkpoint's step."""
    return max((int(path.name[5:]) for path in (run / "checkpoints").glob("step-*")), default=0)


def history(run: Path) -> list[str]:
    """What the batch script noted, without times."""
    file = run / "job.log"
    lines = file.read_text().splitlines() if file.exists() else []
    return [line.partition(" job ")[2] for line in lines]


def rank_process(job: str, rank: int) -> int:
    """The pid of a rank: the child of the step's daemon, not a loader's worker."""
    wanted = {f"SLURM_JOB_ID={job}".encode(), f"SLURM_PROCID={rank}".encode()}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            if Path(f"/proc/{parent}/comm").read_text().strip() != "slurmstepd":
                continue
            variables = set((entry / "environ").read_bytes().split(b"\0"))
        except OSError:
            continue
        if wanted <= variables and any(v.startswith(b"SLURM_STEP_ID=") for v in variables):
            return int(entry.name)
    raise AssertionError(f"no rank {rank} of job {job}")


def require_equal(run: Path, wanted: Path) -> None:
    """Losses and every tensor of the last checkpoint, in every bit."""
    figures = [
        [(row["step"], row["loss"], row["grad_norm"]) for row in rows(one)] for one in (run, wanted)
    ]
    assert figures[0] == figures[1]
    step = saved(wanted)
    assert saved(run) == step
    files = [
        {file.name: load_file(file) for file in folder.glob("*.safetensors")}
        for folder in (one / "checkpoints" / f"step-{step:08d}" for one in (run, wanted))
    ]
    assert files[0].keys() == files[1].keys()
    assert {"model.safetensors", "optim.safetensors", "ema.safetensors"} < files[0].keys()
    for name, tensors in files[1].items():
        for key, value in tensors.items():
            assert files[0][name][key].tobytes() == value.tobytes(), (name, key)
