"""`mimsuite linear-probe`, `knn`, `finetune`, `evaluate`, `features`: what a model has learnt."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mimsuite.cli.options import (
    DataOption,
    GpusOption,
    JsonOption,
    OverridesArgument,
    ProcsOption,
    SmokeOption,
    complete_recipe,
    resumable,
    start_processes,
)
from mimsuite.cluster import find_place, require_single_process
from mimsuite.errors import UserError

if TYPE_CHECKING:
    import torch

    from mimsuite.checkpoints import Opened
    from mimsuite.cluster.peers import Peers
    from mimsuite.config import Resolved
    from mimsuite.evaluate import ProbeData

ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN|CKPT", help="Run directory, checkpoint or weights file.", show_default=False
    ),
]
TuningOption = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="NAME",
        help="Train by this recipe instead of the default.",
        autocompletion=complete_recipe,
    ),
]
BaselinesOption = Annotated[
    bool, typer.Option("--baselines", help="Measure what the figure must beat, too.")
]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Key of splits and batches.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps.")]
ResultOption = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="Write the result here as JSON.")
]
ResumeOption = Annotated[
    str, typer.Option("--resume", help="auto: go on where an earlier call of this was stopped.")
]

# Sections that frozen features depend on; the others made the weights and are history.
_READING = ("eval", "data", "augment")
FEATURE_FILES = (".safetensors", ".npy", ".csv")
_SHARED_SECONDS = 3600.0  # parts of a source may take ranks very different times


def linear_probe(
    ctx: typer.Context,
    model: ModelArgument,
    overrides: OverridesArgument = None,
    data: DataOption = None,
    recipe: TuningOption = None,
    baselines: BaselinesOption = False,
    seed: SeedOption = None,
    device: DeviceOption = "auto",
    resume: ResumeOption = "never",
    procs: ProcsOption = None,
    gpus: GpusOption = None,
    smoke: SmokeOption = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Write the result here; with --recipe a folder for its runs."),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Train a linear classifier on frozen features.

    Without --recipe a grid of learning rates, weight decays, layers and poolings is trained at
    once on cached features and chosen on validation. With --recipe NAME the head is trained by
    that linear-probe recipe, as published.

    Example: mimsuite linear-probe runs/first --data ./photos --baselines
    """
    if procs or gpus:
        folder = _folder_for(model, "linear_probe", resume) if recipe and not out else None
        own = ["--out", str(folder)] if folder else []
        return start_processes(ctx, procs, gpus, [*own, *_on_cuda(gpus, device)])
    if recipe is not None:
        from mimsuite.train.preempt import StopFlag

        stop = StopFlag().install()  # before torch is imported
        from mimsuite import evaluate

        composed = _compose(
            model, recipe, "linear-probe", data, overrides, seed=seed, device=device, smoke=smoke
        )
        folder = out or _folder_for(model, "linear_probe", resume)
        out = _beside(model, "linear_probe.json") or folder / "linear_probe.json"
        with resumable(ctx, folder):
            result = evaluate.trained_probe(
                model, composed, folder, baselines=baselines, resume=resume, stop=stop
            )
    else:
        from mimsuite import evaluate

        with _together(device) as (peers, place):
            opened = _open(model, overrides, data, place, peers.first)
            found = _data_of(opened, baselines, seed, peers)
        if found is None:
            return 0
        result = evaluate.linear_probe(found)
    _finish("linear probe", result, out or _beside(model, "linear_probe.json"), as_json)
    return 0


def knn(
    ctx: typer.Context,
    model: ModelArgument,
    overrides: OverridesArgument = None,
    data: DataOption = None,
    baselines: BaselinesOption = False,
    seed: SeedOption = None,
    device: DeviceOption = "auto",
    procs: ProcsOption = None,
    gpus: GpusOption = None,
    out: ResultOption = None,
    as_json: JsonOption = False,
) -> int:
    """Classify by the nearest training samples in feature space; nothing is trained.

    Example: mimsuite knn runs/first --data ./photos eval.neighbours=10
    """
    if procs or gpus:
        return start_processes(ctx, procs, gpus, _on_cuda(gpus, device))
    from mimsuite import evaluate

    with _together(device) as (peers, place):
        opened = _open(model, overrides, data, place, peers.first)
        found = _data_of(opened, baselines, seed, peers)
    if found is not None:
        result = evaluate.knn(found, opened.resolved.recipe.eval.neighbours)
        _finish("nearest neighbours", result, out or _beside(model, "knn.json"), as_json)
    return 0


def finetune(
    ctx: typer.Context,
    model: ModelArgument,
    overrides: OverridesArgument = None,
    data: DataOption = None,
    recipe: TuningOption = None,
    baselines: BaselinesOption = False,
    equal_compute: Annotated[
        bool,
        typer.Option("--equal-compute", help="Train from scratch for what pretraining cost, too."),
    ] = False,
    rates: Annotated[
        str | None,
        typer.Option(
            metavar="F,F,...|FILE",
            help="Factors of each learning rate, to choose from on held-out training samples; or "
            "what an earlier finetune.json chose.",
        ),
    ] = None,
    seed: SeedOption = None,
    device: DeviceOption = "auto",
    resume: ResumeOption = "never",
    procs: ProcsOption = None,
    gpus: GpusOption = None,
    smoke: SmokeOption = False,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder for the new runs.")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Train all weights on labels, starting from a pretrained encoder.

    With --baselines the same is trained from scratch, for as many steps; with --equal-compute for
    as many FLOPs as pretraining and fine-tuning took together.

    Example: mimsuite finetune runs/first --data ./photos --baselines --rates 0.3,1,3
    """
    if procs or gpus:
        own = [] if out else ["--out", str(_folder_for(model, "finetune", resume))]
        return start_processes(ctx, procs, gpus, [*own, *_on_cuda(gpus, device)])
    from mimsuite.train.preempt import StopFlag

    stop = StopFlag().install()  # before torch is imported
    from mimsuite import evaluate

    composed = _compose(
        model, recipe, "finetune", data, overrides, seed=seed, device=device, smoke=smoke
    )
    folder = out or _folder_for(model, "finetune", resume)
    with resumable(ctx, folder):
        result = evaluate.finetune(
            model,
            composed,
            folder,
            baselines=baselines,
            compute=equal_compute,
            rates=_rates(rates),
            resume=resume,
            stop=stop,
        )
    written = _beside(model, "finetune.json") or folder / "finetune.json"
    _finish("fine-tuning", result, written, as_json)
    return 0


def evaluate(
    model: ModelArgument,
    overrides: OverridesArgument = None,
    data: DataOption = None,
    device: DeviceOption = "auto",
    out: ResultOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score a fine-tuned model on the test split of a labelled source, as its recipe has it:
    classes, parts, boxes, labels of voxels.

    Example: mimsuite evaluate runs/first/finetune/pretrained --data ./photos eval.split=val
    """
    from mimsuite.evaluate.scoring.scorer import scorer_of
    from mimsuite.evaluate.show import show_report
    from mimsuite.evaluate.sources import open_said

    require_single_process()
    opened = _open(model, overrides, data, device)
    source = open_said(opened.resolved, opened.resolved.recipe.eval.split)
    scorer = scorer_of(opened.resolved)
    result = scorer.report(scorer.collect(opened.method, source), source)
    show_report(f"{model} on {source.name}, split '{source.split}'", result)
    _write(result, out or _beside(model, "evaluate.json"), as_json)


def features(
    ctx: typer.Context,
    model: ModelArgument,
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="A .safetensors, .npy or .csv file.")
    ],
    overrides: OverridesArgument = None,
    data: DataOption = None,
    split: Annotated[str, typer.Option("--split", help="Which part of the source.")] = "train",
    layer: Annotated[int | None, typer.Option("--layer", help="Block; default: the last.")] = None,
    pool: Annotated[
        str | None,
        typer.Option("--pool", help="cls or mean, else eval.pool, or mean; of codes max or mean."),
    ] = None,
    dictionary: Annotated[
        str | None,
        typer.Option("--dictionary", metavar="FILE", help="Write codes of it, not features."),
    ] = None,
    dense: Annotated[
        bool, typer.Option("--dense", help="Codes as a full table; else in sparse rows.")
    ] = False,
    device: DeviceOption = "auto",
    procs: ProcsOption = None,
    gpus: GpusOption = None,
) -> int:
    """Write frozen features, labels and sample keys for other tools.

    A .safetensors FILE holds `features` (N, D) and, where known, `labels`; beside it, as .json, are
    the sample keys and class names. An .npy FILE is the (N, D) array alone; beside it, as
    .keys.csv, are keys and labels in the same order. A .csv FILE has all of it in one table. With a
    dictionary a .safetensors FILE holds codes, in sparse rows of `indptr`, `indices` and `values`:
    docs/dictionary.md.

    Example: mimsuite features runs/first --data ./photos --out photos.safetensors
    """
    if out.suffix not in FEATURE_FILES:
        raise UserError(f"--out {out}: the name must end in {', '.join(FEATURE_FILES)}")
    if dense and dictionary is None:
        raise UserError("--dense is of codes: give --dictionary FILE")
    if dictionary is not None:
        if out.suffix != ".safetensors":
            raise UserError(f"--out {out}: codes go to a file that ends in .safetensors")
        if procs or gpus:
            raise UserError("--dictionary works in one process: leave out --procs and --gpus")
        return _codes(model, overrides, data, split, layer, pool, dictionary, device, out, dense)
    if procs or gpus:
        return start_processes(ctx, procs, gpus, _on_cuda(gpus, device))
    from mimsuite.console import say
    from mimsuite.data import open_split
    from mimsuite.evaluate import extract, save_features
    from mimsuite.evaluate.sources import say_unused

    with _together(device) as (peers, place):
        opened = _open(model, overrides, data, place, peers.first)
        source = open_split(opened.resolved.recipe, split)
        if peers.first:
            say_unused(opened.resolved, source)
        wanted = pool or opened.resolved.recipe.eval.pool
        found = extract(
            opened.method,
            source,
            opened.resolved,
            pools=["mean" if wanted == "auto" else wanted],
            layers=[opened.method.layer_count() - 1 if layer is None else layer],
            peers=peers,
        )
    if peers.first:
        try:
            written = save_features(found, out)
        except OSError as error:
            raise UserError(f"cannot write {out}: {error.strerror or error}") from error
        name, table = next(iter(found.features.items()))
        say(f"{name}: {len(table)} x {table.shape[1]} -> {', '.join(map(str, written))}")
    return 0


def _codes(
    model: str,
    overrides: list[str] | None,
    data: str | None,
    split: str,
    layer: int | None,
    pool: str | None,
    dictionary: str,
    device: str,
    out: Path,
    dense: bool,
) -> int:
    """`features --dictionary`."""
    require_single_process()
    from mimsuite.console import say
    from mimsuite.data import open_split
    from mimsuite.dictionaries.embedding import encode_images, save_codes
    from mimsuite.dictionaries.stored import load_dictionary
    from mimsuite.train.device import choose_device

    stored = load_dictionary(dictionary)
    if layer not in (None, stored.facts["layer"]):
        raise UserError(f"--layer {layer}: the dictionary is of block {stored.facts['layer']}")
    chosen = choose_device(device)
    opened = _open(model, overrides, data, chosen)
    source = open_split(opened.resolved.recipe, split)
    codes = encode_images(opened.method, stored, source, opened.resolved, chosen, pool or "max")
    try:
        written = save_codes(codes, out, stored.facts, dense=dense)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}") from error
    active = len(codes.values) / len(codes.keys)
    shape = f"{len(codes.keys)} x {codes.size}"
    say(f"codes: {shape}, {active:.1f} an image -> {', '.join(map(str, written))}")
    return 0


# --- shared --------------------------------------------------------------------------------------


@contextmanager
def _together(device: str) -> Iterator[tuple[Peers, torch.device]]:
    """The ranks that share the work of this command, and the device of this one."""
    place = find_place()
    from mimsuite.cluster.peers import join
    from mimsuite.train.device import choose_device

    chosen = choose_device(device, place.local_rank, place.world)
    peers = join(place, chosen, _SHARED_SECONDS)
    with peers.named_faults():
        yield peers, chosen


def _on_cuda(gpus: int | None, device: str) -> list[str]:
    return ["--device", "cuda"] if gpus and device == "auto" else []


def _open(
    model: str,
    overrides: list[str] | None,
    data: str | None,
    device: str | torch.device,
    tell: bool = True,
) -> Opened:
    """The model on its device, its recipe reading the wanted data."""
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


def _data_of(opened: Opened, baselines: bool, seed: int | None, peers: Peers) -> ProbeData | None:
    from mimsuite import evaluate

    classes = opened.resolved.recipe.data.targets == "classes"
    train, test = evaluate.open_labelled(opened.resolved, classes=classes)
    return evaluate.probe_data(
        opened.method,
        opened.resolved,
        train,
        test,
        baselines=baselines,
        seed=seed or 0,
        peers=peers,
    )


def _compose(
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
    from mimsuite import config
    from mimsuite.checkpoints import open_model
    from mimsuite.evaluate import compose

    run = open_model(model).resolved
    composed = compose(run, recipe or "", task, data or "", overrides or [], smoke=smoke)
    given: dict[str, Any] = {} if device == "auto" else {"train.device": device}
    if seed is not None:
        given["train.seed"] = seed
    return config.with_overrides(composed, given)


def _rates(text: str | None) -> list[float] | dict[str, float]:
    """``0.3,1,3`` -> [0.3, 1, 3]; the path of a result -> the rates that it chose."""
    if text and text.endswith(".json"):
        return _chosen_rates(Path(text))
    try:
        factors = [float(word) for word in text.split(",")] if text else []
    except ValueError:
        factors = [0.0]
    if not all(0 < factor < math.inf for factor in factors):
        raise UserError(f"--rates {text}: give factors above 0, as in 0.3,1,3")
    return factors


def _chosen_rates(path: Path) -> dict[str, float]:
    import json

    try:
        chosen = json.loads(path.read_text())["chosen"]
        return {name: float(choice["learning_rate"]) for name, choice in chosen.items()}
    except OSError as error:
        raise UserError(f"--rates {path}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            f"--rates {path}: not the result of a finetune that chose its rates"
        ) from None


def _folder_for(model: str, name: str, resume: str) -> Path:
    """A folder for new runs: in the run that they start from, else in runs/."""
    run = _run_of(model)
    base = run / name if run else Path("runs") / f"{Path(model).stem}-{name}"
    folder, number = base, 2
    while resume == "never" and folder.exists():
        folder = base.with_name(f"{base.name}-{number}")
        number += 1
    return folder


def _run_of(model: str) -> Path | None:
    """The run directory that a path is or lies in; ``None`` for a file from elsewhere."""
    path = Path(model).resolve()
    near = [path, *path.parents[:2]]  # RUN/checkpoints/step-00000100
    return next((place for place in near if (place / "config.yaml").is_file()), None)


def _beside(model: str, name: str) -> Path | None:
    run = _run_of(model)
    return run / name if run else None


def _finish(title: str, result: dict[str, Any], path: Path | None, as_json: bool) -> None:
    if find_place().rank > 0:  # all ranks have the result, one tells
        return
    from mimsuite.evaluate.show import show_result

    show_result(title, result)
    _write(result, path, as_json)


def _write(result: dict[str, Any], path: Path | None, as_json: bool) -> None:
    """To its file, where there is one, and to stdout with --json."""
    import json

    from mimsuite.cli.output import print_json
    from mimsuite.console import say
    from mimsuite.files import write_atomic

    if path is not None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, json.dumps(result, indent=2) + "\n")
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror or error}") from error
        say(f"written to {path}")
    if as_json:
        print_json(result)
