"""`mimsuite submit`: pretrain as a SLURM job, or as a JobSet of Kubernetes. No torch."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mimsuite.cli.options import (
    DataOption,
    JsonOption,
    OutOption,
    OverridesArgument,
    PluginOption,
    RecipeArgument,
    SmokeOption,
)
from mimsuite.errors import UserError

if TYPE_CHECKING:
    from mimsuite.cluster.submission import Request, Submission

_JOB = "The job"
_ONLY_SLURM = ("profile", "time", "partition", "account", "qos", "constraint", "after", "sweep")


def submit(
    ctx: typer.Context,
    recipe: RecipeArgument,
    overrides: OverridesArgument = None,
    data: DataOption = None,
    out: OutOption = None,
    resume: Annotated[
        str, typer.Option(metavar="never|auto", help="auto: resume an existing run directory.")
    ] = "never",
    init_from: Annotated[
        str | None, typer.Option(help="Start from these weights: run, checkpoint or .pth file.")
    ] = None,
    smoke: SmokeOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the script; write and queue nothing.")
    ] = False,
    as_json: JsonOption = False,
    profile: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="In ~/.config/mimsuite/slurm.yaml; else `default`."),
    ] = None,
    nodes: Annotated[int | None, typer.Option(rich_help_panel=_JOB, help="Default: 1.")] = None,
    gpus_per_node: Annotated[
        int | None, typer.Option(rich_help_panel=_JOB, help="One process each.")
    ] = None,
    tasks_per_node: Annotated[
        int | None, typer.Option(rich_help_panel=_JOB, help="Processes, on nodes without GPUs.")
    ] = None,
    cpus_per_task: Annotated[
        int | None,
        typer.Option(rich_help_panel=_JOB, help="Default: 1, and 1 for each data.workers."),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(rich_help_panel=_JOB, help="Time limit, as in 24:00:00 or 2-12:00:00."),
    ] = None,
    partition: Annotated[str | None, typer.Option(rich_help_panel=_JOB)] = None,
    account: Annotated[str | None, typer.Option(rich_help_panel=_JOB)] = None,
    qos: Annotated[str | None, typer.Option(rich_help_panel=_JOB)] = None,
    constraint: Annotated[
        str | None, typer.Option(rich_help_panel=_JOB, help="Node features, as in a100.")
    ] = None,
    after: Annotated[
        str | None,
        typer.Option(metavar="JOB", rich_help_panel=_JOB, help="Start after JOB has succeeded."),
    ] = None,
    signal: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_JOB,
            help="SIGNAL@SECONDS before the limit: USR1@120.",
        ),
    ] = None,
    requeue: Annotated[
        bool | None,
        typer.Option(
            "--requeue/--no-requeue",
            rich_help_panel=_JOB,
            help="Queue again after a stop. Default: requeue.",
        ),
    ] = None,
    max_requeues: Annotated[
        int | None, typer.Option(rich_help_panel=_JOB, help="Most requeues. Default: 100.")
    ] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=A,B,C",
            rich_help_panel=_JOB,
            help="A run for each value; repeatable.",
        ),
    ] = None,
    at_once: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", rich_help_panel=_JOB, help="At most N runs at a time."),
    ] = None,
    to: Annotated[
        str,
        typer.Option(
            metavar="SYSTEM",
            rich_help_panel=_JOB,
            show_default=False,
            help="slurm, or with --dry-run kubernetes: a JobSet.",
        ),
    ] = "slurm",
    image: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_JOB, metavar="IMAGE", help="Kubernetes: with mimsuite in it."
        ),
    ] = None,
    volume: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CLAIM:/path",
            rich_help_panel=_JOB,
            help="Kubernetes: a volume claim; repeatable.",
        ),
    ] = None,
    plugin: PluginOption = None,
) -> None:
    """Pretrain as a SLURM job: one process per GPU, requeued until it is done.

    The recipe is checked first. The run directory keeps the script, job.sbatch, to be read, changed
    and sent again. Settings of a cluster: ~/.config/mimsuite/slurm.yaml (documentation: slurm).

    Example: mimsuite submit image/mae-vitb16-in1k --nodes 2 --gpus-per-node 8
    """
    from mimsuite.cli.output import print_json
    from mimsuite.cluster import submission
    from mimsuite.cluster.profile import load_profile

    given = {
        "nodes": nodes,
        "gpus_per_node": gpus_per_node,
        "tasks_per_node": tasks_per_node,
        "cpus_per_task": cpus_per_task,
        "time": time,
        "partition": partition,
        "account": account,
        "qos": qos,
        "constraint": constraint,
        "signal": signal,
        "requeue": requeue,
        "max_requeues": max_requeues,
    }
    given = {key: value for key, value in given.items() if value is not None}
    _check_words(resume, after, sweep, at_once, to)
    plugins = [*(ctx.find_root().params.get("plugin") or ()), *(plugin or ())]
    more = [word for file in plugins for word in ("--plugin", str(file.resolve()))]
    more += ["--init-from", init_from] if init_from else []
    request = submission.Request(
        recipe=recipe,
        overrides=tuple(overrides or ()),
        out=out or _free(Path("runs") / Path(recipe).stem),
        data=data,
        smoke=smoke,
        sweeps=tuple(sweep or ()),
        at_once=at_once,
        after=after,
        resume=resume == "auto",
        elsewhere=to == "kubernetes",
        more=tuple(more),
    )
    if request.elsewhere:
        others = {"profile": profile, "after": after, "sweep": sweep}
        unfit = [key for key in _ONLY_SLURM if given.get(key) or others.get(key)]
        print(_job_set(request, given, unfit, image, volume, dry_run and not as_json), end="")
        return
    if image is not None or volume:
        raise UserError("--image and --volume are for --to kubernetes")
    ready = submission.prepare(request, load_profile(profile, given))
    if init_from is not None and not Path(init_from).expanduser().exists():
        raise UserError(f"--init-from {init_from}: there is no such run, checkpoint or file")
    if dry_run:
        if as_json:
            print_json({**_described(ready, None), "text": ready.script})
        else:
            print(ready.script, end="")
        return
    job = submission.send(ready)
    if as_json:
        print_json(_described(ready, job))
    _tell(ready, job)


def _job_set(
    request: Request,
    given: dict[str, Any],
    unfit: list[str],
    image: str | None,
    volumes: list[str] | None,
    printed: bool,
) -> str:
    """The manifest for Kubernetes."""
    from mimsuite.cluster.kubernetes import Volume, render
    from mimsuite.cluster.profile import only_given

    if unfit:
        options = ", ".join(f"--{key}" for key in unfit)
        raise UserError(f"{options}: for SLURM alone; leave it out with --to kubernetes")
    if image is None:
        raise UserError("--to kubernetes needs --image, a container image with mimsuite in it")
    if not printed:
        raise UserError(
            "a JobSet is only printed: add --dry-run, without --json, and pipe it to "
            "kubectl apply -f -"
        )
    return render(request, only_given(given), image, [Volume.of(one) for one in volumes or ()])


def _check_words(
    resume: str, after: str | None, sweep: list[str] | None, at_once: int | None, to: str
) -> None:
    if to not in ("slurm", "kubernetes"):
        raise UserError(f"--to {to}: expected slurm or kubernetes")
    if resume not in ("never", "auto"):
        raise UserError(f"--resume {resume}: expected never or auto")
    if after is not None and not re.fullmatch(r"\d+(_\d+)?(,\d+(_\d+)?)*", after, re.ASCII):
        raise UserError(f"--after {after!a}: expected the id of a job, as in 4711")
    if at_once is not None and not sweep:
        raise UserError("--at-once is for several runs: add --sweep KEY=A,B,C")


def _free(base: Path) -> Path:
    """``runs/NAME``, or the first of ``runs/NAME-2``, ``-3`` ... that is free."""
    number, out = 2, base
    while out.exists():
        out = base.with_name(f"{base.name}-{number}")
        number += 1
    return out


def _described(ready: Submission, job: str | None) -> dict[str, object]:
    own = ready.job
    return {
        "job": job,
        "script": str(own.folder / "job.sbatch"),
        "runs": [
            {
                "run_dir": str(element.run_dir),
                "keys": list(element.keys),
                "job": f"{job}_{index}" if job and own.swept else job,
            }
            for index, element in enumerate(own.elements)
        ],
    }


def _tell(ready: Submission, job: str) -> None:
    from mimsuite.console import rows, say

    own = ready.job
    folder = shlex.quote(str(_near(own.folder)))
    printed = str(_near(Path(own.output))).replace("%j", job).replace("%A_%a", f"{job}_0")
    several = f", {len(own.elements)} runs" if own.swept else ""
    say(f"submitted job {job}: {own.title}{several}", "bold cyan")
    rows(
        [
            ("script", f"{folder}/job.sbatch"),
            ("state", f"mimsuite runs list {folder}"),
            ("follow", f"tail -F {shlex.quote(printed)}"),
            ("cancel", f"scancel {job}"),
        ]
    )


def _near(path: Path) -> Path:
    """The path, relative to the working directory if it lies inside."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
