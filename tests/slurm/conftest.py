"""A real SLURM of two nodes on this machine, for the session."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import needs
from tests.slurm.cluster import PATIENCE, Cluster, tool


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Installed where it is missing, taken down whatever happens."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        needs.lacking("root, for a SLURM of its own", "run the tests as root on Debian")
    if shutil.which("apt-get") is None:
        needs.program("slurmctld")
    # Not among pytest's own folders, which another session may tidy up.
    with tempfile.TemporaryDirectory(prefix="slurm-") as home:
        folder = Path(home) / "cluster"
        try:
            tool("up", folder, "--nodes", "2", "--install")
            yield Cluster(folder)
        finally:
            tool("down", folder)


@pytest.fixture(autouse=True)
def _no_job_stays(cluster: Cluster) -> Iterator[None]:
    """A test that fails leaves the nodes to the next one."""
    yield
    cluster.run("scancel", "--user=root")
    deadline = time.monotonic() + PATIENCE
    while cluster.run("squeue", "--noheader") and time.monotonic() < deadline:
        time.sleep(0.2)
