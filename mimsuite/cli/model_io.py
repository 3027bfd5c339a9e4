"""Shared by commands on a pretrained model: open it, compose its recipe, write results."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimsuite.cluster import find_rank_info
from mimsuite.errors import UserError

if TYPE_CHECKING:
    import torch

    from mimsuite.checkpoints import Opened
    from mimsuite.cluster.peers import Peers
    from mimsuite.config import Resolved
    from mimsuite.evaluate import ProbeData

# Sections that frozen features depend on; the others affected only the training.
_READING = ("eval", "data", "augment")
_SHARED_SECONDS = 3600.0  # ranks may take very different times for their parts of a source


@contextmanager
def together(device: str) -> Iterator[tuple[Peers, torch.device]]:
    """The ranks that share this command's work, and the device of this rank."""
    info = find_rank_info()
    from mimsuite.cluster.meeting import join
    from mimsuite.train.device import choose_device

    chosen = choose_device(device, info.local_rank, info.world)
    peers = join(info, chosen, _SHARED_SECONDS)
    with peers.named_faults():
        yield peers, chosen


def on_cuda(gpus: int | None, device: str) -> list[str]:
    """Words that select CUDA for the processes of ``--gpus``, unless a device is given."""
    return ["--device", "cuda"] if gpus and device == "auto" else []


def open_on_device(
    model: str,
    overrides: list[str] | None,
    data: str | None,
    device: str | torch.device,
    tell: bool = True,
) -> Opened:
    """Open the model on its device, with ``data`` as the source of its recipe."""
    from dataclasses import replace

    from mimsuite import config
    from mimsuite.checkpoints import open_model
    from mimsuite.console import say
    from mimsuite.train.device import choose_device

    for text in overrides or []:
        if text.partition(".")[0] not in _READING:
            raise UserError(
                f"'{text}': frozen features depend on {', '.join(f'{s}.*' for s in _READING)} only"
            )
    opened = open_model(model)
    for note in opened.notes if tell else ():
        say(note)
    resolved = opened.resolved
    if data is not None:
        resolved = config.with_overrides(resolved, {"data.source": data}, "command line")
    resolved = config.with_overrides(resolved, overrides or [])
    opened.method.to(choose_device(device) if isinstance(device, str) else device)
    return replace(opened, resolved=resolved)


def probe_data_of(
    model: str,
    overrides: list[str] | None,
    data: str | None,
    device: str,
    baselines: bool,
    seed: int | None,
) -> tuple[ProbeData | None, Resolved]:
    """The features for frozen probes (``None`` except on the first rank), and the recipe."""
    from mimsuite import evaluate

    with together(device) as (peers, place):
        opened = open_on_device(model, overrides, data, place, peers.first)
        method, resolved = opened.method, opened.resolved
        classes = resolved.recipe.data.targets == "classes"
        splits = evaluate.open_labelled(resolved, classes=classes)
        found = evaluate.probe_data(
            method, resolved, *splits, baselines=baselines, seed=seed or 0, peers=peers
        )
        return found, resolved


def compose_for(
    model: str,
    recipe: str | None,
    task: str,
    data: str | None,
    overrides: list[str] | None,
    *,
    seed: int | None,
    device: str,
    smoke: bool,
) -> Resolved:
    """The recipe that tunes or probes a model; see :func:`mimsuite.evaluate.compose`."""
    from mimsuite.checkpoints import open_model
    from mimsuite.evaluate import compose

    run = open_model(model).resolved
    composed = compose(run, recipe or "", task, data or "", overrides or [], smoke=smoke)
    return with_options(composed, seed, device)


def with_options(recipe: Resolved, seed: int | None, device: str) -> Resolved:
    """The recipe with ``--seed`` and ``--device`` applied."""
    from mimsuite import config

    given: dict[str, Any] = {} if device == "auto" else {"train.device": device}
    if seed is not None:
        given["train.seed"] = seed
    return config.with_overrides(recipe, given)


def folder_for(model: str, name: str, resume: str) -> Path:
    """A folder for new runs: in the run that they start from, otherwise in runs/."""
    run = run_of(model)
    base = run / name if run else Path("runs") / f"{Path(model).stem}-{name}"
    folder, number = base, 2
    while resume == "never" and folder.exists():
        folder = base.with_name(f"{base.name}-{number}")
        number += 1
    return folder


def run_of(model: str) -> Path | None:
    """The run directory that a path is or lies in; ``None`` if it is not in a run."""
    path = Path(model).resolve()
    near = [path, *path.parents[:2]]  # RUN/checkpoints/step-00000100
    return next((place for place in near if (place / "config.yaml").is_file()), None)


def beside(model: str, name: str) -> Path | None:
    """A file of the run that a path is or lies in."""
    run = run_of(model)
    return run / name if run else None


def finish(
    name: str,
    model: str,
    result: dict[str, Any],
    out: Path | None,
    as_json: bool,
    folder: Path | None = None,
) -> None:
    """Show the result of a probe and write it: to ``out``, or to its file in the model's run, or
    in ``folder``."""
    if find_rank_info().rank > 0:  # all ranks have the result; only the first reports it
        return
    from mimsuite.evaluate.probes_table import PROBES
    from mimsuite.evaluate.show import show_result

    probe = next(probe for probe in PROBES if probe.name == name)
    show_result(probe.title, result)
    path = out or beside(model, probe.file) or (folder / probe.file if folder else None)
    write_result(result, path, as_json)


def write_result(result: dict[str, Any], path: Path | None, as_json: bool) -> None:
    """Write a result to ``path``, if given, and to stdout with --json; a run's page shows it."""
    import json

    from mimsuite.cli.output import print_json
    from mimsuite.console import say
    from mimsuite.files import write_atomic
    from mimsuite.report import write_page

    if path is not None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, json.dumps(result, indent=2) + "\n")
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror or error}") from error
        say(f"written to {path}")
        if (path.parent / "config.yaml").is_file():
            write_page(path.parent)
    if as_json:
        print_json(result)
