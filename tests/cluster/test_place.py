"""Rank detection: torchrun, SLURM or nothing, each of them whole or an error."""

from __future__ import annotations

import pytest

from mimsuite.cluster.place import Place, find_place, first_of, require_single_process
from mimsuite.errors import UserError

TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "node1",
    "MASTER_PORT": "1234",
}
SLURM = {
    "SLURM_NTASKS": "8",
    "SLURM_STEP_ID": "0",
    "SLURM_JOB_ID": "41",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "2",
    "SLURM_STEP_NODELIST": "gpu[03-05,9],login1",
}


def test_each_launcher_is_understood(monkeypatch):
    monkeypatch.setenv("PATH", "")  # no scontrol
    assert find_place({}) == Place()
    assert find_place(TORCHRUN) == Place(3, 4, 1, "node1", 1234, "torchrun")
    assert find_place(SLURM) == Place(5, 8, 1, "gpu03", 20041, "SLURM")
    assert find_place({**SLURM, "MASTER_ADDR": "h", "MASTER_PORT": "7"}).address == "h"
    # torchrun under srun: the step's tasks are agents, not ranks.
    assert find_place({**SLURM, **TORCHRUN}).launcher == "torchrun"
    # Interactive shells of a job are single processes.
    assert find_place({**SLURM, "SLURM_NTASKS": "1"}) == Place()
    assert find_place({"MASTER_ADDR": "h", "MASTER_PORT": "7"}) == Place()


@pytest.mark.parametrize("missing", TORCHRUN)
def test_a_part_of_torchruns_variables_is_an_error(missing):
    part = {name: value for name, value in TORCHRUN.items() if name != missing}
    with pytest.raises(UserError, match=f"torchrun set .* but not {missing}: set all of them"):
        find_place(part)


def test_what_would_hang_is_refused():
    with pytest.raises(UserError, match=r"has 8 tasks, .*: start it with srun"):
        find_place({"SLURM_NTASKS": "8", "SLURM_JOB_ID": "41"})
    with pytest.raises(UserError, match=r"SLURM set .* but not SLURM_LOCALID"):
        find_place({name: value for name, value in SLURM.items() if name != "SLURM_LOCALID"})
    with pytest.raises(UserError, match="WORLD_SIZE=many is not a whole number"):
        find_place({**TORCHRUN, "WORLD_SIZE": "many"})


def test_single_process_commands_refuse_peers(monkeypatch):
    require_single_process()
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="one of 4 processes"):
        require_single_process()


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu1", "gpu1"),
        ("gpu1,gpu2", "gpu1"),
        ("gpu[03-05,9],login1", "gpu03"),
        ("a[1,7]-ib,b", "a1-ib"),
    ],
)
def test_first_host_of_a_node_list(nodes, first):
    assert first_of(nodes) == first
