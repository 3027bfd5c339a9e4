"""The command line's frame: help without torch, errors on one line, exit codes."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer

from mimsuite import __version__
from mimsuite.cli import main as frame
from mimsuite.cli.main import COMMANDS, load_command, main
from mimsuite.errors import DataError, Preempted, UserError


@pytest.fixture
def command(monkeypatch):
    """Install a function as the command `fake`, and run it."""

    def run(function, *arguments):
        loaded = frame._click_command(function, "fake")
        frame._prepare(loaded)
        monkeypatch.setitem(COMMANDS, "fake", frame.Command("fake:fake", "A fake.", "Fakes"))
        monkeypatch.setattr(frame, "load_command", lambda name: loaded)
        return main([*arguments])

    return run


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_loads_and_takes_the_global_options(name):
    command = load_command(name)
    leaves = list(getattr(command, "commands", {}).values()) or [command]
    for leaf in leaves:
        options = [option for parameter in leaf.params for option in parameter.opts]
        assert options.count("--plugin") == 1
        assert options.count("--debug") == 1
        assert leaf.help


def test_the_help_lists_every_command(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for name in COMMANDS:
        assert f" {name} " in shown


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["recipes", "--help"],
        ["recipes", "list"],
        ["recipes", "show", "image/mae-vitb16-in1k", "--resolved"],
        ["recipes", "validate", "image/mae-vitb16-finetune-in1k"],
        ["recipes", "diff", "image/mae-vitb16-in1k", "image/mae-vitl16-in1k"],
        ["recipes", "weights"],
        ["pretrain", "--help"],
    ],
    ids=" ".join,
)
def test_heavy_libraries_are_not_loaded(arguments):
    program = (
        "import sys; from mimsuite.cli.main import main; code = main(sys.argv[1:]);"
        "heavy = {'torch', 'torchvision', 'timm', 'matplotlib', 'numpy'} & set(sys.modules);"
        "sys.exit(f'loaded {heavy}' if heavy else code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_the_module_is_the_command_line():
    done = subprocess.run(
        [sys.executable, "-m", "mimsuite", "recpes"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "error: no command 'recpes'. Did you mean recipes?\n"


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"mimsuite {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pretrian"], "no command 'pretrian'. Did you mean pretrain?"),
        (["qqqq"], "no command 'qqqq'. `mimsuite --help` lists the commands."),
        (["recipes", "lst"], "'list'? See `mimsuite recipes --help`."),
        (["recipes", "show"], "Missing argument 'RECIPE'. See `mimsuite recipes show --help`"),
        (["recipes", "list", "--jsn"], "No such option: --jsn"),
        (["--frobnicate"], "No such option: --frobnicate"),
        (["recipes", "list", "too", "many"], "extra argument"),
        (["--plugin", "nope.py", "recipes", "list"], "--plugin nope.py: expected a Python file"),
        (["recipes", "list", "--plugin", "nope.py"], "--plugin nope.py: expected a Python file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_use_is_one_line_and_exit_2(capsys, arguments, message):
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert message in shown.err
    assert shown.err.count("\n") == 1


def test_without_arguments_the_help_is_shown(capsys):
    assert main([]) == 2
    assert "pretrain" in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UserError("wrong [bold]key[/bold]"), 2, "error: wrong [bold]key[/bold]\n"),
        (DataError("bad\x1b[31m file"), 3, "error: bad\\x1b[31m file\n"),
        (Preempted("saved"), 75, "saved\n"),
        (UserError("2 faults\n  one\n  two"), 2, "error: 2 faults\n  one\n  two\n"),
        (
            ValueError("a\nb"),
            1,
            "error: internal: ValueError: a b (run again with --debug for more)\n",
        ),
        (MemoryError(), 1, "error: out of memory: a smaller train.micro_batch needs less"),
        (KeyboardInterrupt(), 130, ""),
        (typer.Exit(7), 7, ""),
        (BrokenPipeError(), 1, ""),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_errors_and_exit_codes(command, capfd, error, code, message):
    def fail() -> None:
        raise error

    assert command(fail, "fake") == code
    shown = capfd.readouterr()
    assert shown.err.startswith(message)
    assert "Traceback" not in shown.err
    assert shown.out == ""


@pytest.mark.parametrize("arguments", [["--debug", "fake"], ["fake", "--debug"]])
def test_debug_shows_the_traceback(command, capsys, arguments):
    def fail() -> None:
        raise ValueError("broken")

    assert command(fail, *arguments) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_plugin_after_the_command_is_registered_before_it_runs(command, tmp_path, monkeypatch):
    from mimsuite import config
    from mimsuite.config import methods

    monkeypatch.setattr(methods, "_plugins", [])
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "from typing import Literal\n"
        "from mimsuite.config.keys.shared import *\n"
        "class MineSection(MethodSection):\n    name: Literal['mine']\n"
        "class MineRecipe(Recipe):\n    method: MineSection\n"
    )
    seen = []

    def look() -> None:
        seen.append(config.method_file("mine"))

    assert command(look, "fake", "--plugin", str(plugin)) == 0
    assert seen == [plugin]
