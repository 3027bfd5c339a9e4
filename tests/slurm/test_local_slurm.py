"""The throw-away cluster leaves nothing behind, however it is left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.slurm.cluster import TOOL, Cluster, tool

pytestmark = pytest.mark.slurm


def processes(folder: Path) -> list[str]:
    """Names of the processes of a cluster, zombies apart: who reaps those is not ours to say."""
    wanted = f"SLURM_CONF={folder}/slurm.conf".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append((entry / "comm").read_text().strip())
        except OSError:
            continue
    return found


def test_jobs_and_daemons_that_were_killed_leave_nothing(cluster: Cluster, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    tool("up", folder, "--nodes", "2")
    other = Cluster(folder)
    words = ("--nodes=2", "--ntasks=2", "--output=/dev/null", "--wrap", "srun sleep 300")
    other.run("sbatch", *words)
    deadline = time.monotonic() + 30
    while "sleep" not in processes(folder):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    for name in ("slurmctld", "slurmd.n1"):
        os.kill(int((folder / "run" / f"{name}.own").read_text().split()[0]), signal.SIGKILL)
    tool("down", folder)
    assert processes(folder) == []
    assert not folder.exists()
    tool("down", folder)


def test_a_cluster_whose_folder_is_gone_can_be_ended(cluster: Cluster, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    tool("up", folder)
    shutil.rmtree(folder)
    tool("down", folder)
    assert processes(folder) == []


def test_a_cluster_that_cannot_start_leaves_nothing(cluster: Cluster, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    words = ("up", "--dir", str(folder), "--grace", "-5")
    done = subprocess.run([sys.executable, str(TOOL), *words], capture_output=True, text=True)
    assert done.returncode == 1
    assert "GraceTime value (-5) is less than zero" in done.stderr
    assert done.stderr.splitlines()[-1] == "local_slurm: slurmctld ended by itself"
    assert processes(folder) == []
    assert not folder.exists()


def test_status_tells_whether_it_is_up(cluster: Cluster, tmp_path: Path) -> None:
    command = [sys.executable, str(TOOL), "status", "--dir"]
    here = Path(cluster.environment["SLURM_CONF"]).parent
    done = subprocess.run([*command, str(here)], capture_output=True, text=True)
    assert done.returncode == 0
    assert "n[1-2]" in done.stdout
    assert subprocess.run([*command, str(tmp_path)], capture_output=True).returncode == 1
