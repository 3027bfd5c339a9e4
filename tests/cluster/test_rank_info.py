"""Rank detection: torchrun, SLURM or nothing, each of them whole or an error."""

from __future__ import annotations

import pytest

from mimsuite.cluster import rank_info as module
from mimsuite.cluster.launch import launch
from mimsuite.cluster.rank_info import RankInfo, find_rank_info, first_of, require_single_process
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
    assert find_rank_info({}) == RankInfo()
    assert find_rank_info(TORCHRUN) == RankInfo(3, 4, 1, "node1", 1234, "torchrun")
    assert find_rank_info(SLURM) == RankInfo(5, 8, 1, "gpu03", 20041, "SLURM")
    assert find_rank_info({**SLURM, "MASTER_ADDR": "h", "MASTER_PORT": "7"}).address == "h"
    # torchrun under srun: the step's tasks are agents, not ranks.
    assert find_rank_info({**SLURM, **TORCHRUN}).launcher == "torchrun"
    # Interactive shells of a job are single processes.
    assert find_rank_info({**SLURM, "SLURM_NTASKS": "1"}) == RankInfo()
    assert find_rank_info({"MASTER_ADDR": "h", "MASTER_PORT": "7"}) == RankInfo()


@pytest.mark.parametrize("missing", ["RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"])
def test_a_part_of_torchruns_variables_is_an_error(missing):
    part = {name: value for name, value in TORCHRUN.items() if name != missing}
    with pytest.raises(UserError, match=f"environment has .* but not {missing}: set all"):
        find_rank_info(part)


def test_the_variables_of_half_a_launcher_are_named():
    with pytest.raises(UserError, match="environment has LOCAL_RANK but not RANK, WORLD_SIZE, "):
        find_rank_info({"LOCAL_RANK": "0"})
    with pytest.raises(UserError, match="environment has an empty RANK but not RANK, WORLD_SIZE, "):
        find_rank_info({"RANK": ""})


def test_what_would_hang_is_refused(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/bin/mimsuite", "features", "RUN"])
    with pytest.raises(UserError, match=r"has 8 tasks, .*: start it with srun"):
        find_rank_info({"SLURM_NTASKS": "8", "SLURM_JOB_ID": "41"})
    with pytest.raises(UserError, match=r"`srun -N1 -n1 mimsuite features RUN`"):
        find_rank_info({"SLURM_NTASKS": "8", "SLURM_JOB_ID": "41"})
    with pytest.raises(UserError, match=r"SLURM set .* but not SLURM_LOCALID"):
        find_rank_info({name: value for name, value in SLURM.items() if name != "SLURM_LOCALID"})
    with pytest.raises(UserError, match="WORLD_SIZE=many is not a whole number"):
        find_rank_info({**TORCHRUN, "WORLD_SIZE": "many"})


def test_single_process_commands_refuse_peers(monkeypatch):
    require_single_process()
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="one of 4 processes"):
        require_single_process()


# As `salloc` leaves the shell of a job of four tasks, in its interactive step.
SALLOC = {
    "SLURM_JOB_ID": "1",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
    "SLURM_STEP_ID": "4294967290",
    "SLURM_STEP_NUM_TASKS": "1",
    "SLURM_STEP_NODELIST": "localhost",
}
SBATCH = {"SLURM_JOB_ID": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}


def without(environment: dict[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in names}


@pytest.mark.parametrize(
    ("environment", "warned"),
    [
        (SALLOC, "has 4 tasks, here runs one process"),
        (without(SALLOC, "SLURM_STEP_NUM_TASKS"), "has 4 tasks"),
        ({**SALLOC, "SLURM_STEP_ID": "4294967292"}, "has 4 tasks"),  # a login to the node
        ({**SALLOC, "SLURM_NTASKS": "1", "SLURM_NNODES": "2"}, "has 2 nodes, here runs one"),
        ({**SALLOC, "SLURM_STEP_ID": "3"}, ""),  # srun -n1 in a job of four
        ({**SLURM, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, ""),
        ({**SBATCH, "SLURM_NTASKS": "1"}, ""),
        ({**SBATCH, "SLURM_NNODES": "1"}, ""),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, ""),  # of no job: left over
        (
            {**SBATCH, "SLURM_STEP_ID": "0", "SLURM_NTASKS": "1", "SLURM_NNODES": "2"},
            "this step has 2 nodes, but one task: give srun --ntasks-per-node",
        ),
    ],
)
def test_one_process_of_a_slurm_job(environment, warned, caplog):
    module._warn_once.cache_clear()
    assert find_rank_info(environment) == RankInfo()
    assert [warned in line for line in caplog.messages] == [True] * bool(warned)


@pytest.mark.parametrize("step", [{}, {"SLURM_STEP_ID": "4294967291"}])
@pytest.mark.parametrize("size", [{"SLURM_NTASKS": "4"}, {"SLURM_NNODES": "2"}])
def test_a_batch_script_of_several_tasks_or_nodes_needs_srun(step, size):
    with pytest.raises(UserError, match=r"none of them: start it with srun, as in `srun "):
        find_rank_info({**SBATCH, **step, **size})


def test_the_steps_own_number_of_tasks_counts():
    info = find_rank_info({**SLURM, "SLURM_STEP_NUM_TASKS": "6"})
    assert (info.rank, info.world) == (5, 6)
    with pytest.raises(UserError, match="SLURM_PROCID=5 is none of the step's 4 tasks"):
        find_rank_info({**SLURM, "SLURM_STEP_NUM_TASKS": "4"})


@pytest.mark.parametrize(
    ("more", "local_rank", "rule"),
    [
        ({"RANK": "0", "WORLD_SIZE": "1"}, 0, "the only process"),
        ({"LOCAL_WORLD_SIZE": "1"}, 0, "one process a machine"),
        ({"PET_NPROC_PER_NODE": "1", "KUBERNETES_SERVICE_HOST": "h"}, 0, "one process a machine"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, 0, "one process a pod"),
        ({"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}, 1, "OMPI_COMM_WORLD"),
        ({"PMI_RANK": "3", "MPI_LOCALRANKID": "2"}, 2, "MPI_LOCALRANKID"),
        ({"SLURM_PROCID": "3", "SLURM_LOCALID": "1"}, 1, "SLURM_LOCALID"),
    ],
)
def test_a_local_rank_that_follows_is_found(more, local_rank, rule):
    info = find_rank_info({**without(TORCHRUN, "LOCAL_RANK"), **more})
    assert info.local_rank == local_rank
    assert rule in info.rule


@pytest.mark.parametrize("more", [{}, {"LOCAL_WORLD_SIZE": "2"}, {"OMPI_COMM_WORLD_RANK": "3"}])
def test_a_local_rank_that_does_not_follow_is_asked_for(more):
    with pytest.raises(UserError, match=r"not LOCAL_RANK.*: set LOCAL_RANK=0 where each machine"):
        find_rank_info({**without(TORCHRUN, "LOCAL_RANK"), **more})


def test_a_rank_outside_of_the_world_is_refused():
    with pytest.raises(UserError, match="RANK=4 is none of WORLD_SIZE=4"):
        find_rank_info({**TORCHRUN, "RANK": "4"})


@pytest.mark.parametrize(
    ("rank", "size", "local"),
    [
        ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
        ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_LOCAL_RANK"),
        ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),
    ],
)
def test_mpi_launchers_are_understood_or_refused_by_name(rank, size, local):
    mpi = {rank: "2", size: "4", local: "0"}
    meeting = {"MASTER_ADDR": "n1", "MASTER_PORT": "29500"}
    assert find_rank_info({**mpi, **meeting}) == RankInfo(2, 4, 0, "n1", 29500, "MPI")
    # Under SLURM, mpirun starts its own helpers by srun: theirs are not the ranks.
    assert find_rank_info({**SLURM, **mpi, **meeting}).launcher == "MPI"
    # srun sets such variables for its own tasks, too.
    assert find_rank_info({**SLURM, rank: "5", size: "8"}).launcher == "SLURM"
    with pytest.raises(UserError, match=r"one of 4, but MASTER_ADDR and MASTER_PORT .*--procs 4"):
        find_rank_info(mpi)
    assert find_rank_info({rank: "0", size: "1"}).world == 1


def test_an_mpi_rank_without_a_world_is_refused():
    with pytest.raises(UserError, match="PMIX_RANK is set"):
        find_rank_info({"PMIX_RANK": "0"})
    assert (
        find_rank_info({"PMIX_RANK": "0", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "1"}) == RankInfo()
    )


def test_procs_are_refused_where_a_launcher_has_started_peers(monkeypatch):
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="leave it out under torchrun or srun"):
        launch(["doctor"], 2)


def test_one_process_work_started_by_srun_names_the_command(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/bin/mimsuite", "evaluate", "my run"])
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=r"one of 8 .*`srun -N1 -n1 mimsuite evaluate 'my run'`"):
        require_single_process()
    monkeypatch.delenv("SLURM_STEP_ID")  # in the batch script it is one process, as it should be
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
