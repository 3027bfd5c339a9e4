"""Entry of the command line: the table of commands, global options, errors and exit codes.

A command's file is imported only when the command is called, so ``mimsuite --help`` is fast and
does not load torch.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import logging
import os
import re
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from mimsuite import __version__
from mimsuite.children import follow_parent
from mimsuite.cli import output
from mimsuite.cli.options import DebugOption, Invocation, PluginOption, expand_paths
from mimsuite.errors import MimsuiteError, Preempted, UserError
from mimsuite.evaluate.probes_table import PROBES


class Command(NamedTuple):
    """A command's location (``module:function`` or ``module:app``), help line and panel."""

    target: str
    help: str
    panel: str


_TRAIN, _LOOK, _FILES, _MACHINE = "Train", "Look and measure", "Recipes, data, models", "Machine"

COMMANDS = {
    "demo": Command("demo:demo", "Pretrain on embedded images, and measure: minutes.", _TRAIN),
    "pretrain": Command("pretrain:pretrain", "Pretrain a masked model by a recipe.", _TRAIN),
    "submit": Command("submit:submit", "Pretrain as a SLURM job.", _TRAIN),
    **{
        probe.command: Command(
            f"{probe.module}:{probe.name}", probe.help, _LOOK if probe.frozen else _TRAIN
        )
        for probe in PROBES
    },
    "dictionary": Command(
        "dictionary:dictionary", "Concepts of patches, by a sparse dictionary.", _LOOK
    ),
    "robustness": Command("robustness:robustness", "A probe on corrupted samples.", _LOOK),
    "evaluate": Command("probes:evaluate", "Score a fine-tuned model again.", _LOOK),
    "features": Command("features:features", "Write frozen features to a file.", _LOOK),
    "score": Command("score:score", "Find samples that are hard or unusual for a model.", _LOOK),
    "reconstruct": Command("reconstruct:reconstruct", "Draw masked reconstructions.", _LOOK),
    "pictures": Command("pictures:pictures", "Draw features and attention.", _LOOK),
    "card": Command("card:card", "Report card of a run, on one page.", _LOOK),
    "recipes": Command("recipes:app", "List, show, copy, check and compare recipes.", _FILES),
    "data": Command("data:app", "Pack, inspect, verify and make data.", _FILES),
    "export": Command("convert:export", "Write a model for timm, HF, ONNX and others.", _FILES),
    "import": Command("convert:import_", "Convert an official checkpoint.", _FILES),
    "runs": Command("runs:app", "State and results of runs.", _MACHINE),
    "doctor": Command("doctor:doctor", "Check this machine, or a recipe's cost.", _MACHINE),
    "bench": Command("bench:app", "Measure speed on this machine.", _MACHINE),
}

# Called without typer, whose parameters load pydantic: that takes longer than the command.
_NOTHING_TO_PARSE = {"recipes list": "recipes:list_recipes"}

# Torch's messages for device and host memory.
_OUT_OF_MEMORY = re.compile("^OutOfMemoryError|DefaultCPUAllocator: (can't|not enough) ")


class LazyGroup(TyperGroup):
    """Takes help lines from the table, and imports a command only to run it."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A placeholder with the help line, for the list of commands."""
        if cmd_name not in COMMANDS:
            return None
        command = COMMANDS[cmd_name]
        return TyperCommand(cmd_name, help=command.help, rich_help_panel=command.panel)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The list of commands, by panel."""
        widest = max(map(len, COMMANDS))
        for panel in dict.fromkeys(command.panel for command in COMMANDS.values()):
            with formatter.section(panel):
                formatter.write_dl(
                    [(n.ljust(widest), c.help) for n, c in COMMANDS.items() if c.panel == panel]
                )

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, *rest = args
        if name not in COMMANDS:
            if ctx.resilient_parsing:  # the shell asks for completions, not for an error
                return None, None, []
            from mimsuite.config.suggest import did_you_mean

            hint = did_you_mean(name, COMMANDS) or " `mimsuite --help` lists the commands."
            raise UserError(f"no command '{name}'.{hint}")
        return name, load_command(name), rest


def load_command(name: str) -> Any:
    """Import a command; it and its subcommands accept the global options too."""
    target = _import(COMMANDS[name].target)
    command = (
        typer.main.get_group(target)
        if isinstance(target, typer.Typer)
        else _click_command(target, name)
    )
    _prepare(command)
    return command


def _import(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(f"mimsuite.cli.{module}"), attribute)


def _click_command(function: Any, name: str) -> Any:
    app = typer.Typer(add_completion=False)
    app.command(name)(function)
    return typer.main.get_command(app)


def _prepare(command: Any) -> None:
    """Set up a command and its subcommands: global options, paths, help."""
    commands = getattr(command, "commands", {})
    for inner in commands.values():
        _prepare(inner)
    if not commands:
        expand_paths(command)
        taken = {parameter.name for parameter in command.params}
        for parameter in _click_command(_global_options, "").params:
            if parameter.name not in taken:
                parameter.expose_value = False  # their callbacks do the work
                command.params.append(parameter)


def _global_options(plugin: PluginOption = None, debug: DebugOption = False) -> None:
    """Declares the options that every command accepts."""


def _print_version(value: bool) -> None:
    if value:
        print(f"mimsuite {__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=LazyGroup,
    add_completion=True,
    no_args_is_help=True,
    rich_markup_mode=None,  # importing typer's rich help takes as long as everything else
    help="Masked modeling of images, video, point clouds and radiance fields.",
    epilog="Example: mimsuite pretrain image/mae-tiny-fashion --out runs/first",
)


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
    plugin: PluginOption = None,
    debug: DebugOption = False,
) -> None:
    """Global options; their callbacks do the work."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line.

    Args:
        arguments: without the program's name; ``None``: those of the process.

    Returns:
        the exit code: 0 done, 1 internal error or out of memory, 2 user error, 3 data error,
        4 diverged, 75 saved and ready to resume, 130 interrupted.
    """
    code = _run(sys.argv[1:] if arguments is None else list(arguments))
    if arguments is None:
        _leave(code)
    elif preempt := sys.modules.get("mimsuite.train.preempt"):  # the caller's process continues
        preempt.restore_handlers()
    return code


def _run(words: list[str]) -> int:
    # Waiting threads should sleep: spinning slows a shared machine down by an order of magnitude
    # and gains nothing on a free one. Torch reads this once, when it is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    follow_parent()
    log = logging.getLogger("mimsuite")
    log.handlers = [output.WarningLog()]
    invocation = Invocation(words)
    try:
        code = _call(words, invocation)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except BrokenPipeError:  # the reader of stdout, such as `head`, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except Exception as error:
        if invocation.debug:
            traceback.print_exc()
        return _report(error)


def _call(words: list[str], invocation: Invocation) -> Any:
    """Run the command; returns its result."""
    target = _NOTHING_TO_PARSE.get(" ".join(words))
    if target:
        return _import(target)()
    return typer.main.get_command(app).main(
        args=words, prog_name="mimsuite", standalone_mode=False, obj=invocation
    )


def _leave(code: int) -> None:
    """Prepare the end of this process; a distributed one ends here, without Python's shutdown.

    Its connections have native threads, which sometimes meet a half-closed interpreter and abort
    the process after all its work is done.
    """
    meeting = sys.modules.get("mimsuite.cluster.meeting")
    if meeting is not None and meeting.met():
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    gc.freeze()  # else Python's last collection looks at all that torch made: a second of CPU time


def _report(error: Exception) -> int:
    """Print one message for an exception; returns its exit code."""
    if isinstance(error, Preempted):
        output.say(str(error))
        if error.resume:
            output.say(f"next: {error.resume}")
        return error.exit_code
    if isinstance(error, MimsuiteError):
        if not getattr(error, "reported", False):  # otherwise the failed rank reports it
            output.error(str(error))
        return error.exit_code
    if hasattr(error, "format_message"):  # usage error from the parser
        return _report_usage(error)
    if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(f"{type(error).__name__}: {error}"):
        output.error("out of memory: a smaller train.micro_batch needs less, with the same result")
        return 1
    summary = " ".join(str(error).split())
    output.error(f"internal: {type(error).__name__}: {summary} (run again with --debug for more)")
    return 1


def _report_usage(error: Any) -> int:
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return 2
    message = " ".join(error.format_message().split())
    message += "" if message.endswith((".", "?")) else "."
    more = f" See `{context.command_path} --help`." if context is not None else ""
    output.error(message + more)
    return 2
