"""Submission of a recipe as a SLURM job. Does not import torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mimsuite import config
from mimsuite.cluster import slurm
from mimsuite.cluster.profile import Profile
from mimsuite.cluster.sbatch import SCRIPT, Element, Job, render
from mimsuite.cluster.sweep import combinations, name_of
from mimsuite.config import Resolved, catalog
from mimsuite.config.keys.shared import Recipe
from mimsuite.config.suggest import with_article
from mimsuite.errors import UserError
from mimsuite.files import write_atomic
from mimsuite.paths import expand_path


@dataclass(frozen=True)
class Request:
    """Options of the command line; see `mimsuite submit --help`.

    Attributes:
        more: further arguments of ``mimsuite pretrain``.
        resume: continue in directories that already contain a run.
        elsewhere: data and run directory are paths of another machine.
    """

    recipe: str
    overrides: tuple[str, ...]
    out: Path
    data: str | None = None
    smoke: bool = False
    sweeps: tuple[str, ...] = ()
    at_once: int | None = None
    after: str | None = None
    resume: bool = False
    elsewhere: bool = False
    more: tuple[str, ...] = ()


@dataclass(frozen=True)
class Submission:
    """A job ready to be submitted: its script, and a snapshot of a recipe file of the user."""

    job: Job
    script: str
    frozen: dict[Path, str]


def prepare(request: Request, profile: Profile) -> Submission:
    """Check everything possible before the job is queued.

    Raises:
        UserError: lists all faults of the recipe for each combination of a sweep; or the request
            cannot run, or run directories are in use.
    """
    folder = request.out.resolve()
    sweep = combinations(request.sweeps)
    elements = tuple(Element(folder / name_of(keys) if keys else folder, keys) for keys in sweep)
    resolved = check_recipes(request, profile, elements)
    _check_directories(request, folder, elements)
    file = catalog.find(request.recipe)
    own = file.name not in catalog.names()
    frozen: dict[Path, str] = {}
    recipe = file.name
    if own:  # the user may edit the file while the job waits or before it is requeued
        copy = folder / f"{file.path.stem}.yaml"
        recipe, frozen = str(copy), {copy: config.load(file.path).yaml()}
    job = Job(
        title=file.path.name if own else file.name,
        folder=folder,
        words=words_of(request, profile, resolved.recipe, recipe),
        elements=elements,
        at_once=request.at_once,
        after=request.after,
        workers=resolved.recipe.data.workers,
    )
    return Submission(job, render(job, profile, Path.cwd()), frozen)


def send(submission: Submission) -> str:
    """Write the files of a job into its run directory, and submit it.

    Returns:
        the job's id.

    Raises:
        UserError: the directory cannot be written, or sbatch is not installed or refuses the
            script, which is kept for inspection.
    """
    job = submission.job
    script = job.folder / SCRIPT
    try:
        for element in job.elements:
            element.run_dir.mkdir(parents=True, exist_ok=True)
        for path, text in {**submission.frozen, script: submission.script}.items():
            write_atomic(path, text)
        number = slurm.send(script)
        for index, element in enumerate(job.elements):
            own = f"{number}_{index}" if job.swept else number
            record = {"job": own, "script": str(script), "recipe": job.title, "keys": element.keys}
            write_atomic(element.run_dir / slurm.RECORD, json.dumps(record, indent=2) + "\n")
    except OSError as error:
        raise UserError(
            f"cannot write {job.folder}: {error.strerror}; choose another --out"
        ) from None
    return number


def words_of(request: Request, profile: Profile, resolved: Recipe, recipe: str) -> tuple[str, ...]:
    """Arguments of ``mimsuite pretrain``, without ``--out`` and ``--resume``."""
    words = [recipe, *request.overrides, *request.more]
    if request.data is not None:
        local = not request.elsewhere and Path(request.data).exists()
        words += ["--data", str(Path(request.data).resolve()) if local else request.data]
    # Otherwise a node with broken GPUs would silently train on its CPUs.
    if profile.gpus_per_node and resolved.train.device == "auto":
        words += ["--device", "cuda"]
    return (*words, *(["--smoke"] if request.smoke else []))


def check_recipes(request: Request, profile: Profile, elements: Sequence[Element]) -> Resolved:
    """Check the recipe of every run; returns the first."""
    found: list[Resolved] = []
    faults: dict[str, None] = {}
    for element in elements:
        try:
            resolved = config.load(
                request.recipe, [*request.overrides, *element.keys], smoke=request.smoke
            )
            if request.data is not None:
                resolved = config.with_overrides(resolved, {"data.source": request.data})
            found.append(resolved)
            faults.update(dict.fromkeys(_misfits(resolved, profile, request.elsewhere)))
        except UserError as error:
            faults[str(error)] = None
    if faults:
        raise UserError("\n  ".join(faults))
    return found[0]


def _misfits(resolved: Resolved, profile: Profile, elsewhere: bool) -> list[str]:
    """Faults that would end the job in its first minute."""
    recipe, world = resolved.recipe, profile.world
    batch, task = recipe.train.global_batch, recipe.recipe.task
    if task != "pretrain":
        return [f"{resolved.name} is {with_article(task)} recipe: mimsuite submit pretrains"]
    faults = []
    if batch % world:
        faults.append(f"train.global_batch={batch} cannot be shared by {world} processes")
    if profile.gpus_per_node and recipe.train.device not in ("auto", "cuda"):
        faults.append(f"train.device={recipe.train.device}, but the job has GPUs")
    for source in [one.source for one in recipe.data.mixture or ()] or [recipe.data.source]:
        if not source:
            faults.append("data.source: required, but not set; use --data")
        elif elsewhere or set(source) & set(":{}*?["):
            continue
        elif not Path(expand_path(source)).exists():
            faults.append(f"data.source: there is no {source}")
    return faults


def _check_directories(request: Request, folder: Path, elements: Sequence[Element]) -> None:
    if folder.exists() and not folder.is_dir():
        raise UserError(
            f"{folder} is a file, not a place for a run directory: choose another --out"
        )
    states = None
    for element in elements:
        run = element.run_dir
        job = slurm.job_of(run)
        if job is not None:
            states = slurm.job_states() or {} if states is None else states
            state = states.get(job, slurm.GONE)
            if slurm.is_alive(state):
                raise UserError(f"job {job} ({state}) is for {run}: choose another --out")
        begun = (run / "config.yaml").exists()
        if begun and not request.resume:
            raise UserError(
                f"run directory {run} exists: go on in it with --resume auto, or choose another "
                f"--out"
            )
        if not begun and job is None and run.is_dir() and not _is_ours(run):
            raise UserError(f"directory {run} is not empty: choose another --out")


def _is_ours(run: Path) -> bool:
    """Whether the directory is missing, empty, or left by a submission without sbatch."""
    names = {path.name for path in run.iterdir()}
    return not names or SCRIPT in names
