"""Help that fits a screen and shows an example; completion in the shell."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mimsuite.cli.main import COMMANDS, load_command

COLUMNS, LINES = 100, 50


def commands() -> Iterator[list[str]]:
    for name in COMMANDS:
        inner = getattr(load_command(name), "commands", None)
        yield from ([name], *([name, below] for below in inner or ()))


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_help_fits_a_screen_and_shows_an_example(words, monkeypatch, capsys):
    from rich.console import Console

    from mimsuite.cli.main import main

    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    assert Console().width == COLUMNS
    assert main([*words, "--help"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) <= LINES
    assert max(map(len, shown)) <= COLUMNS
    if not hasattr(load_command(words[0]), "commands") or len(words) == 2:
        assert any("Example: mimsuite " + " ".join(words) in line for line in shown)


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("mimsuite fin", ["finetune"]),
        ("mimsuite recipes va", ["validate"]),
        ("mimsuite pretrain image/mae-tiny-fa", ["image/mae-tiny-fashion"]),
        ("mimsuite recipes show image/mae-tiny-fa", ["image/mae-tiny-fashion"]),
        (
            "mimsuite linear-probe RUN --recipe image/mae-vitb16-lin",
            ["image/mae-vitb16-linprobe-in1k"],
        ),
        (
            "mimsuite pretrain image/mae-tiny-fashion optim.l",
            ["optim.lr=", "optim.lr_per_256=", "optim.layer_decay="],
        ),
        ("mimsuite linear-probe RUN schedule.warmup_e", ["schedule.warmup_epochs="]),
        ("mimsuite pretrain image/mae-tiny-fashion optim.name=ad", ["optim.name=adamw"]),
        ("mimsuite pretrain image/mae-tiny-fashion optim.name = ad", ["adamw"]),  # as bash does
        ("mimsuite pretrain image/mae-tiny-fashion target.normalize =", ["true", "false"]),
        ("mimsuite pretrain image/mae-tiny-fashion optim.lr=1", []),
        ("mimsuite pretrain ./no-recipe", []),  # then the shell offers files
        ("mimsuite no-such-command x", []),
    ],
)
def test_the_shell_completes_commands_recipes_and_keys(typed, offered):
    words = typed.split()
    program = "import sys; from mimsuite.cli.main import main; sys.exit(main([]))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ
        | {
            "_MIMSUITE_COMPLETE": "complete_bash",
            "COMP_WORDS": typed,
            "COMP_CWORD": str(len(words) - 1),
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0
    assert sorted(done.stdout.split()) == sorted(offered)
    assert done.stderr == ""


def test_bash_completes_by_the_script_that_is_shown():
    typed = "COMP_WORDS=(mimsuite pretrain image/mae-tiny-fa); COMP_CWORD=2"
    lines = 'eval "$(mimsuite --show-completion)"', typed, "_mimsuite_completion mimsuite"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "--norc", "-c", "; ".join([*lines, 'echo "${COMPREPLY[@]}"'])],
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("image/mae-tiny-fashion\n", "")
