#!/usr/bin/env python3
"""A throw-away SLURM of several nodes on this one machine, for tests.

    tools/local_slurm.py up     --dir DIR --nodes 2 [--install]
    eval "$(tools/local_slurm.py env --dir DIR)"       # sinfo, sbatch ... now mean this cluster
    tools/local_slurm.py status --dir DIR
    tools/local_slurm.py down   --dir DIR

Real daemons: munged, slurmctld and one slurmd a node, of Debian's packages slurmctld, slurmd,
slurm-client and munge. They need root, since slurmd starts steps as their users. Settings, keys,
sockets, state and logs are in DIR; nothing outside of it is touched. `up` that fails takes down
what it started, and `down` may be called any number of times.

Two partitions: jobs of ``high`` preempt those of ``low`` (the default), which are requeued.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged")
DAEMONS = ("slurmstepd", "slurmd", "slurmctld", "munged")
FOLDERS = ("run", "log", "munge", "state", "spool")
# Of jobs, munged last: the others speak through it.
LAST_TO_FIRST = ("slurmd", "slurmctld", "munged")

# Nodes share a machine: each gets a port and a spool folder (%n is its name), and steps are
# followed by /proc since control groups are not ours to make.
SETTINGS = """\
ClusterName=local
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
# A requeued job waits as long as a credential is valid: 5 s is the least, 120 the default.
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/log/jobcomp.txt
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
# Nodes may claim more CPUs than there are.
SlurmdParameters=config_overrides
ReturnToService=2
JobRequeue=1
# Look for work every second; the defaults are made for clusters.
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,sched_min_interval=0,batch_sched_delay=0
# A preempted job gets the signal that it asked for with --signal.
SlurmctldParameters=preempt_send_user_signal
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait={kill_wait}
MinJobAge=3600
# A busy machine answers late, and a request that is sent again may end the next start of a job.
MessageTimeout=60
BatchStartTimeout=60
SlurmdTimeout=300
SlurmctldTimeout=300
UnkillableStepTimeout=120
PropagateResourceLimits=NONE
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("command", choices=("up", "down", "env", "status"))
    parser.add_argument("--dir", type=Path, required=True, help="folder of this cluster")
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--cpus", type=int, default=2, help="of a node; may exceed the machine's")
    parser.add_argument("--grace", type=int, default=20, help="seconds that preempted jobs have")
    parser.add_argument("--install", action="store_true", help="apt-get install what is missing")
    options = parser.parse_args()
    folder = options.dir.resolve()
    if options.command == "env":
        # The names of the nodes are no hosts, so a job could not find its first one by name.
        print(f"export SLURM_CONF={folder}/slurm.conf MASTER_ADDR=127.0.0.1")
        return 0
    if options.command == "status":
        return status(folder)
    if options.command == "down":
        down(folder)
        return 0
    if options.install:
        install()
    return up(folder, options.nodes, options.cpus, options.grace)


def install() -> None:
    """The Debian packages, where a program of them is missing."""
    if all(map(shutil.which, PROGRAMS)):
        return
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], check=True, env=environment)
    command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)


def up(folder: Path, nodes: int, cpus: int, grace: int) -> int:
    """Start all daemons and wait until a job runs; all or nothing."""
    if os.geteuid() != 0:
        sys.exit("local_slurm: needs root, since slurmd starts steps as their users")
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        sys.exit(f"local_slurm: {', '.join(missing)} missing: use --install")
    if (folder / "slurm.conf").exists():
        down(folder)
    begun = time.monotonic()
    try:
        lay_out(folder, nodes, cpus, grace)
        start_daemons(folder, nodes)
        slurm(folder, "srun", f"--nodes={nodes}", "true", check=True)
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        for log in sorted((folder / "log").glob("*")):
            print(f"--- {log.name}", *tail(log), sep="\n", file=sys.stderr)
        down(folder)
        print(f"local_slurm: {error}", file=sys.stderr)
        return 1
    took = time.monotonic() - begun
    print(f"local_slurm: {nodes} nodes up in {took:.1f} s", file=sys.stderr)
    return 0


def lay_out(folder: Path, nodes: int, cpus: int, grace: int) -> None:
    """Folders, key and settings."""
    for name in FOLDERS:
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)  # the users of jobs read the settings
    key = folder / "munge" / "key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(128))
    port, *ports = free_ports(nodes + 1)
    host = socket.gethostname()
    lines = [SETTINGS.format(folder=folder, host=host, port=port, kill_wait=10)]
    for name, own_port in zip(names(nodes), ports, strict=True):
        (folder / "spool" / name).mkdir()
        lines.append(
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={own_port} CPUs={cpus} "
            f"RealMemory=1000 State=UNKNOWN\n"
        )
    share = f"Nodes={','.join(names(nodes))} MaxTime=60 State=UP"
    lines.append(f"PartitionName=low {share} Default=YES PriorityTier=1 GraceTime={grace}\n")
    lines.append(f"PartitionName=high {share} PriorityTier=10 PreemptMode=OFF\n")
    (folder / "slurm.conf").write_text("".join(lines))
    (folder / "cgroup.conf").write_text("")  # else that of the system is looked for


def start_daemons(folder: Path, nodes: int) -> None:
    munge = folder / "munge"
    start(
        folder,
        "munged",
        ["munged", "--foreground", "--force", f"--key-file={munge}/key",
         f"--socket={munge}/socket", f"--pid-file={munge}/pid", f"--seed-file={munge}/seed",
         f"--log-file={folder}/log/munged.log"],
    )  # fmt: skip
    wait_for(folder, "munged", (munge / "socket").exists)
    settings = f"{folder}/slurm.conf"
    start(folder, "slurmctld", ["slurmctld", "-D", "-i", "-f", settings])
    wait_for(folder, "slurmctld", lambda: "UP" in slurm(folder, "scontrol", "ping"))
    for name in names(nodes):
        start(folder, f"slurmd.{name}", ["slurmd", "-D", "-N", name, "-f", settings])
    wait_for(folder, "slurmd", lambda: node_states(folder) == ["idle"] * nodes)


def start(folder: Path, name: str, command: list[str]) -> None:
    """Start a daemon in a session of its own, and note who it is: pids are used again."""
    with open(folder / "log" / f"{name}.out", "ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment_of(folder),
            start_new_session=True,
        )
    (folder / "run" / f"{name}.own").write_text(f"{process.pid} {started_at(process.pid)}")


def down(folder: Path) -> None:
    """End jobs and daemons, whatever of them is there, and remove the folder."""
    if is_up(folder):
        end_jobs(folder)
    for kind in LAST_TO_FIRST:
        end([int(own.read_text().split()[0]) for own in own_files(folder) if kind in own.name])
    end(list(leftovers(folder)))  # of nodes that were killed, or all where the folder is gone
    shutil.rmtree(folder, ignore_errors=True)


def end_jobs(folder: Path) -> None:
    """Cancel all jobs and wait until no node is busy with one."""
    try:
        slurm(folder, "scancel", "--user=root", "--signal=KILL", "--full")
        slurm(folder, "scancel", "--user=root")
        wait_for(
            folder, "end of jobs", lambda: not slurm(folder, "squeue", "--noheader").strip(), 15
        )
    except (RuntimeError, subprocess.SubprocessError):
        pass  # the daemons end all the same, and after them what is left of jobs


def end(pids: list[int]) -> None:
    """SIGTERM, and SIGKILL for those that stay."""
    known = {pid: started_at(pid) for pid in pids}
    for number, patience in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)):
        for pid, since in known.items():
            if lives(pid, since):
                os.kill(pid, number)
        deadline = time.monotonic() + patience
        while any(lives(*one) for one in known.items()) and time.monotonic() < deadline:
            time.sleep(0.05)


def status(folder: Path) -> int:
    """Print nodes and jobs; 1 where the cluster is not up."""
    if not is_up(folder):
        print(f"local_slurm: nothing runs in {folder}", file=sys.stderr)
        return 1
    print(slurm(folder, "sinfo"), slurm(folder, "squeue"), sep="", end="")
    return 0


# --- what is there -------------------------------------------------------------------------------


def is_up(folder: Path) -> bool:
    return any("slurmctld" in own.name for own in own_files(folder))


def own_files(folder: Path) -> Iterator[Path]:
    """The notes of daemons that still live."""
    for own in sorted((folder / "run").glob("*.own")):
        pid, since = own.read_text().split(" ")
        if lives(int(pid), since):
            yield own


def leftovers(folder: Path) -> Iterator[int]:
    """Processes of this cluster and its jobs, known by their environment."""
    settings = f"SLURM_CONF={folder}/slurm.conf".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
            daemon = (entry / "comm").read_text().strip() in DAEMONS
        except OSError:
            continue
        of_job = any(variable.startswith(b"SLURM_JOB_ID=") for variable in variables)
        if settings in variables and (daemon or of_job):
            yield int(entry.name)


def lives(pid: int, since: str) -> bool:
    return since != "" and started_at(pid) == since


def started_at(pid: int) -> str:
    """When a process began, in ticks; empty for one that is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def names(nodes: int) -> list[str]:
    return [f"n{number}" for number in range(1, nodes + 1)]


def node_states(folder: Path) -> list[str]:
    return slurm(folder, "sinfo", "--noheader", "--partition=low", "--Node", "--format=%T").split()


def slurm(folder: Path, *command: str, check: bool = False) -> str:
    """What a SLURM command says."""
    done = subprocess.run(
        command, env=environment_of(folder), capture_output=True, text=True, timeout=30
    )
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def environment_of(folder: Path) -> dict[str, str]:
    return {**os.environ, "SLURM_CONF": f"{folder}/slurm.conf"}


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def wait_for(folder: Path, what: str, there: Callable[[], bool], seconds: float = 30) -> None:
    """Until something is so; in vain where a daemon has ended."""
    deadline = time.monotonic() + seconds
    while not there():
        daemons = sorted((folder / "run").glob("*.own"))
        ended = [own.stem for own in daemons if own not in list(own_files(folder))]
        if ended:
            raise RuntimeError(f"{' and '.join(ended)} ended by itself")
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what}: not there after {seconds:.0f} s")
        time.sleep(0.05)


def tail(log: Path) -> list[str]:
    return log.read_text(errors="replace").splitlines()[-20:]


if __name__ == "__main__":
    sys.exit(main())
