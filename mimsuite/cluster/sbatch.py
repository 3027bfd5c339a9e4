"""The batch script of a job: readable bash that trains, and requeues itself as long as it advances.

It can be resubmitted by hand at any time (``sbatch RUN/job.sbatch``): training resumes from the
newest checkpoint. Does not import torch.
"""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from mimsuite.cluster.profile import Profile
from mimsuite.errors import UserError

SCRIPT = "job.sbatch"

# Characters allowed in lines that SLURM parses: % and quotes have a meaning there.
_PATH = re.compile(r"[\w./+=,@:~ -]+")


@dataclass(frozen=True)
class Element:
    """One run of a job: the only one, or one element of a sweep."""

    run_dir: Path
    keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """The work of a job.

    Attributes:
        title: first line of the script.
        folder: absolute path of the folder for the script and the job's output.
        words: arguments of ``mimsuite pretrain``, without ``--out`` and ``--resume``.
        elements: the runs; several make a job array.
        at_once: largest number of elements that run at the same time; None: all.
        after: jobs that must succeed first, such as ``12`` or ``12,13_4``.
        workers: loader workers per process.
    """

    title: str
    folder: Path
    words: tuple[str, ...]
    elements: tuple[Element, ...]
    at_once: int | None = None
    after: str | None = None
    workers: int = 0

    @property
    def swept(self) -> bool:
        return self.elements[0].run_dir != self.folder

    @property
    def output(self) -> str:
        """The output file, a name with SLURM's patterns."""
        return f"{self.folder}/slurm-{'%A_%a' if self.swept else '%j'}.out"


def render(job: Job, profile: Profile, directory: Path) -> str:
    """Write the script as text.

    Args:
        profile: the resources of the job.
        directory: working directory of the job, to which paths are relative.

    Raises:
        UserError: a path or word that SLURM or bash could misinterpret.
    """
    for path in (job.folder, directory):
        if not _PATH.fullmatch(str(path)):
            raise UserError(
                f"{str(path)!a} does not fit into a batch script: only letters, digits, spaces "
                f"and ./+=,@:~_- do; choose another place"
            )
    keys = (key for element in job.elements for key in element.keys)
    for word in (job.title, *job.words, *keys):
        if not word.isprintable():
            raise UserError(f"{word!a} holds a control character")
    shell = "#!/bin/bash -l" if profile.modules else "#!/bin/bash"
    parts = [
        "\n".join([shell, *_head(job, profile), *_options(job, profile, directory)]),
        _setup(profile),
        _runs(job, profile),
        _MEET,
        _START,
        _training(job, profile),
        _DECIDE,
    ]
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def _head(job: Job, profile: Profile) -> list[str]:
    nodes = "1 node" if profile.nodes == 1 else f"{profile.nodes} nodes"
    each = "1 process" if profile.tasks == 1 else f"{profile.tasks} processes"
    sweep = f", {len(job.elements)} runs" if job.swept else ""
    return [
        f"# {job.title} on {nodes} x {each}{sweep}. Written by `mimsuite submit`.",
        "# Send it again with sbatch to go on from the newest checkpoint.",
        "",
    ]


def _options(job: Job, profile: Profile, directory: Path) -> list[str]:
    """The #SBATCH lines."""
    array = f"0-{len(job.elements) - 1}" + (f"%{job.at_once}" if job.at_once else "")
    options = {
        "job-name": _quoted(job.folder.name),
        "chdir": _quoted(str(directory)),
        "output": _quoted(job.output),
        "open-mode": "append",
        "array": array if job.swept else None,
        "dependency": f"afterok:{job.after.replace(',', ':')}" if job.after else None,
        "kill-on-invalid-dep": "yes" if job.after else None,
        "partition": profile.partition,
        "account": profile.account,
        "qos": profile.qos,
        "constraint": profile.constraint and f'"{profile.constraint}"',
        "nodes": profile.nodes,
        "ntasks-per-node": profile.tasks,
        "gpus-per-node": profile.gpus_per_node,
        "cpus-per-task": _cpus(job, profile),
        "time": profile.time,
        "signal": profile.signal,
    }
    lines = [f"#SBATCH --{name}={value}" for name, value in options.items() if value is not None]
    lines.append(f"#SBATCH --{'requeue' if profile.requeue else 'no-requeue'}")
    return [*lines, *(f"#SBATCH {option}" for option in profile.sbatch)]


def _setup(profile: Profile) -> str:
    lines = [f"module load {shlex.quote(name)} || exit" for name in profile.modules]
    lines += [
        f"export {name}={shlex.quote(str(value))}" for name, value in profile.environment.items()
    ]
    lines += profile.setup
    return "\n".join(["# The cluster's own, by the profile.", *lines]) if lines else ""


def _runs(job: Job, profile: Profile) -> str:
    """The lines that select the run of this job or array element."""
    script = f"script={shlex.quote(f'{job.folder}/{SCRIPT}')}"
    lines = [
        f"run={shlex.quote(str(job.folder))}",
        "job=$SLURM_JOB_ID",
        script,
        'again="sbatch ${script@Q}"',
    ]
    if job.swept:
        rows = [
            f"    {number}) run={shlex.quote(str(element.run_dir))} keys=({keys}) ;;"
            for number, element in enumerate(job.elements)
            for keys in [shlex.join(element.keys)]
        ]
        lines = [
            "# The run of each element of the array, and its keys.",
            "case $SLURM_ARRAY_TASK_ID in",
            *rows,
            '    *) echo "this sweep has no run $SLURM_ARRAY_TASK_ID" >&2; exit 2 ;;',
            "esac",
            "job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID",
            script,
            'again="sbatch --array=$SLURM_ARRAY_TASK_ID ${script@Q}"',
        ]
    return "\n".join([*lines, f"max_requeues={profile.max_requeues if profile.requeue else 0}"])


def _training(job: Job, profile: Profile) -> str:
    """The training command."""
    cpus = _cpus(job, profile)
    srun = ["--kill-on-bad-exit=1", f"--cpus-per-task={cpus}", *map(shlex.quote, profile.srun)]
    command = profile.command or ("mimsuite" if profile.container else _this_installation())
    keys = ' "${keys[@]}"' if job.swept else ""
    lines = [
        f"srun {' '.join(srun)}",
        *([profile.container] if profile.container else []),
        f"{command} pretrain {shlex.join(job.words)}{keys}",
        '--out "$run" --resume auto',
    ]
    body = " \\\n    ".join(lines)
    threads = f"export OMP_NUM_THREADS=${{OMP_NUM_THREADS:-{cpus}}}"
    return f"{threads}\n{body}\ncode=$?"


def _cpus(job: Job, profile: Profile) -> int:
    return profile.cpus_per_task or job.workers + 1


def _this_installation() -> str:
    script = Path(sys.executable).with_name("mimsuite")
    words = [str(script)] if script.exists() else [sys.executable, "-m", "mimsuite"]
    return shlex.join(words)


def _quoted(text: str) -> str:
    return f'"{text}"'


_MEET = r"""
# Where rank 0 waits for the others.
MASTER_ADDR=${MASTER_ADDR:-$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)}
MASTER_PORT=${MASTER_PORT:-$((20000 + SLURM_JOB_ID % 20000))}
export MASTER_ADDR MASTER_PORT
"""

_START = r"""
# The step of the newest checkpoint, 0 without one.
saved_step() {
    local all=("$run"/checkpoints/step-[0-9]*)
    local newest=${all[-1]##*/step-}
    if [[ $newest =~ ^[0-9]+$ ]]; then echo "$((10#$newest))"; else echo 0; fi
}
# A line to the run's job.log, and to what this job prints.
note() { echo "$(date +%FT%T%z) job $job start $((restarts + 1)): $*" | tee -a "$run/job.log"; }
# Whether this start of the run left the file.
left() { [ "$run/$1" -nt "$run/.started" ]; }

mkdir -p "$run"
restarts=${SLURM_RESTART_COUNT:-0}
if [ "$restarts" = 0 ]; then echo 0 > "$run/.stalled"; fi
before=$(saved_step)
touch "$run/.started"
note "from step $before on $SLURM_JOB_NODELIST"

# A stop signal is for the processes of training. This shell outlives it: a trapped signal waits
# until srun has ended, so its exit code is known in any case.
trap : TERM USR1 USR2
"""

_DECIDE = r"""
# The outcome. srun reports the highest exit code, maybe that of a process that it killed itself;
# the run directory has the reason.
after=$(saved_step)
stalled=0
if [ "$after" -le "$before" ]; then stalled=$(($(< "$run/.stalled") + 1)); fi
echo "$stalled" > "$run/.stalled"
result="exit code $code, step $before to $after"
state=$(scontrol show job --oneliner "$job" 2> /dev/null)

if [ "$code" = 0 ] || left DONE; then
    note "$result: done"
    exit 0
elif left PREEMPTED; then
    what="stopped by a signal" stalls=2
elif left FAILED && grep -q '"reason": "Unreachable' "$run/FAILED"; then
    what="lost the server of its data" stalls=2
elif left FAILED && ! grep -q '"reason": "PeerError' "$run/FAILED"; then
    what="failed" stalls=-1
elif [[ "$code $state" =~ ^(75|138|140|143.*(PreemptTime=[0-9]|Reason=TimeLimit)) ]]; then
    what="stopped before it could save" stalls=2
elif [ "$code" -gt 128 ] || left FAILED; then
    what="lost a process" stalls=1
else
    what="failed" stalls=-1
fi

# Again, unless that could go on for ever.
stop() { note "$result: $what, $*"; exit "$code"; }
if [ "$stalls" -lt 0 ]; then
    stop "see ${script%/*}/slurm-$job.out"
elif [ "$stalled" -ge "$stalls" ]; then
    stop "and no new step was saved; to go on: $again"
elif [ "$restarts" -ge "$max_requeues" ]; then
    stop "and was queued again $restarts times before; to go on: $again"
elif ! command -v scontrol > /dev/null; then
    stop "and there is no scontrol here; to go on: $again"
elif ! [[ $state =~ JobState=RUNNING|Reason=TimeLimit ]]; then
    stop "but SLURM has ended the job, so it is not queued again from here; to go on: $again"
fi
note "$result: $what, queued again"
trap '' TERM  # with which SLURM ends this script, and scontrol before it has its answer
scontrol requeue "$job" || stop "but scontrol refused to queue it; to go on: $again"
exit "$code"
"""
