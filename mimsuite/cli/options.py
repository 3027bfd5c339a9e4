"""Arguments and options that commands share, with one name and one help text each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from mimsuite.errors import Preempted, UserError
from mimsuite.paths import expand_path


@dataclass
class Invocation:
    """One command line: its words and global options; the root context's ``obj``."""

    words: list[str] = field(default_factory=list)
    debug: bool = False


def _set_debug(ctx: typer.Context, value: bool) -> bool:
    invocation = ctx.find_root().obj
    if value and isinstance(invocation, Invocation):
        invocation.debug = True
    return value


def _register_plugins(value: list[Path] | None) -> list[Path]:
    if value:
        from mimsuite.config import register_plugin

        for path in value:
            register_plugin(path)
    return value or []


# --- global, before or after the command's name --------------------------------------------------

PluginOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        metavar="FILE",
        help="Python file with a method of your own; repeatable.",
        callback=_register_plugins,
        is_eager=True,
        rich_help_panel="Global options",
    ),
]
DebugOption = Annotated[
    bool,
    typer.Option(
        "--debug",
        help="Show the traceback of an error.",
        callback=_set_debug,
        is_eager=True,
        rich_help_panel="Global options",
    ),
]

# --- for commands --------------------------------------------------------------------------------


def complete_recipe(incomplete: str) -> list[str]:
    """Catalog names, for shell completion; if none matches, the shell offers files."""
    from mimsuite.config import catalog

    return [name for name in catalog.names() if name.startswith(incomplete)]


def complete_key(ctx: typer.Context, incomplete: str) -> list[str]:
    """Keys of the recipe that was named, for shell completion, else those of every recipe; behind
    ``KEY=`` the words that the key accepts."""
    from mimsuite.config import load
    from mimsuite.config.keys.shared import Recipe
    from mimsuite.config.schema import dotted_keys, words_of

    try:
        named = load(ctx.params.get("recipe") or "")
    except UserError:
        return [f"{key}=" for key in dotted_keys(Recipe) if key.startswith(incomplete)]
    typed = [word for word in ctx.params.get("overrides") or () if word != "="]
    if typed and "=" not in typed[-1]:  # to bash `KEY=VALUE` is three words, of which one is asked
        return [w for w in words_of(named.recipe, typed[-1]) if w.startswith(incomplete)]
    key, given, _ = incomplete.partition("=")
    offered = [f"{key}={word}" for word in words_of(named.recipe, key)] if given else []
    return [
        word
        for word in (offered or [f"{key}=" for key in named.origins])
        if word.startswith(incomplete)
    ]


RecipeArgument = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="Recipe name or YAML file.",
        show_default=False,
        autocompletion=complete_recipe,
    ),
]
OverridesArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Keys to change, as in mask.ratio=0.6.",
        show_default=False,
        autocompletion=complete_key,
    ),
]
DataOption = Annotated[
    str | None,
    typer.Option("--data", metavar="SRC", help="Folder, list file, tar shards or embedded:NAME."),
]
OutOption = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Where to write.")]
SmokeOption = Annotated[
    bool, typer.Option("--smoke", help="Shrink the recipe's sizes until it runs in seconds.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
ProcsOption = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Run as N processes on this machine.")
]
GpusOption = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Run on N CUDA devices of this machine.")
]

# --- for commands on a model ---------------------------------------------------------------------

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
BaselinesOption = Annotated[bool, typer.Option("--baselines", help="Measure the baselines too.")]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Seed of splits and batches.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps.")]
ResultOption = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="Write the result here as JSON.")
]
ResumeOption = Annotated[
    str, typer.Option("--resume", help="auto: continue an earlier call that was stopped.")
]


# Metavars of parameters that are, or may be, a path.
_PATH_WORDS = {"SRC", "RUN", "CKPT", "FILE", "FILES", "FOLDER", "DIR", "PATH", "SHARDS"}
_PATH_NAMES = {"init_from", "resume"}


def expand_paths(command: Any) -> None:
    """Make every path parameter of a command expand ``~`` and variables, also in ``--out=~/x``."""
    for parameter in command.params:
        words = set(re.findall("[A-Z]+", parameter.metavar or ""))
        is_path = bool(words & _PATH_WORDS) or parameter.name in _PATH_NAMES
        parameter.callback = partial(_expand, parameter.callback, is_path)


def _expand(
    callback: Callable[..., Any] | None, is_path: bool, context: Any, parameter: Any, value: Any
) -> Any:
    value = _expanded(value, is_path)
    return value if callback is None else callback(context, parameter, value)


def _expanded(value: Any, is_path: bool) -> Any:
    if isinstance(value, Path):
        return Path(expand_path(str(value)))
    if isinstance(value, str) and is_path:
        return expand_path(value)
    if isinstance(value, list | tuple):
        return type(value)(_expanded(one, is_path) for one in value)
    return value


@contextmanager
def resumable(ctx: typer.Context, folder: Path) -> Iterator[None]:
    """If a stop signal ends the block, print the command that resumes in ``folder``."""
    try:
        yield
    except Preempted as stop:
        from mimsuite.cluster import find_rank_info
        from mimsuite.report.commands import resuming

        if find_rank_info().world == 1:  # otherwise the parent process prints it
            stop.resume = resuming(["mimsuite", *ctx.find_root().obj.words], folder)
        raise


def start_processes(
    ctx: typer.Context, procs: int | None, gpus: int | None, more: Sequence[str]
) -> int:
    """Run this command, with the words ``more``, as several processes; returns the exit code."""
    from mimsuite.cluster.launch import launch

    if procs and gpus:
        raise UserError("--procs and --gpus exclude each other: --gpus is for CUDA devices")
    words: list[str] = []
    skip = False
    for word in ctx.find_root().obj.words:
        if skip or word in ("--procs", "--gpus"):
            skip = not skip
        elif not word.startswith(("--procs=", "--gpus=")):
            words.append(word)
    code = launch([*words, *more], procs or gpus or 1)
    if code == Preempted.exit_code:
        from mimsuite.cli.output import say
        from mimsuite.report.commands import resuming

        say(f"next: {resuming(['mimsuite', *ctx.find_root().obj.words, *more])}")
    return code
