"""Commands of this command line, shown and run as children that end with the demo."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mimsuite.children import passing_signals_on, start_child
from mimsuite.console import say

_SHOWN = 20  # last lines of the log of a failed command


def run_command(*words: object, capture: bool = False, log: Path | None = None) -> str:
    """Show a command and run it.

    Args:
        capture: return its stdout instead of passing it on.
        log: append its stderr to this file instead of passing it on.

    Raises:
        SystemExit: it failed, with its exit code; or a stop signal came, 128 and its number.
    """
    command = [str(word) for word in words]
    say(f"$ mimsuite {shlex.join(command)}", "bold")
    children: list[subprocess.Popen[str]] = []
    with ExitStack() as files:
        stderr = None if log is None else files.enter_context(log.open("a"))
        signalled = files.enter_context(passing_signals_on(children))
        program = [sys.executable, "-m", "mimsuite", *command]
        stdout = subprocess.PIPE if capture else None
        children.append(start_child(program, stdout=stdout, stderr=stderr, text=True))
        answer, _ = children[0].communicate()
        number = signalled()
    code = children[0].returncode
    if number:
        raise SystemExit(128 + number)
    if code:
        for line in log.read_text().splitlines()[-_SHOWN:] if log is not None else ():
            say(line)
        say(f"error: that command ended with exit code {code}")
        raise SystemExit(code)
    return answer or ""


def answer_of(*words: object, log: Path | None = None) -> dict[str, Any]:
    """The JSON answer of a command; raises as :func:`run_command`."""
    answer: dict[str, Any] = json.loads(run_command(*words, "--json", capture=True, log=log))
    return answer
