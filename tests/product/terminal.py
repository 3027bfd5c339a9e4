"""A real terminal, typed into: bash in tmux, and what is on its screen."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

_PROMPT = re.compile(r"^<(?P<number>\d+) (?P<code>\d+)> ?$")  # number of the command to come


class Done(NamedTuple):
    """A command that has ended: its exit code, and what the terminal shows since it was typed."""

    code: int
    text: str


class Terminal:
    """One shell; ``mimsuite`` and ``python`` in it are those of this environment."""

    def __init__(self, socket: Path, folder: Path) -> None:
        self._socket, self._lines = socket, 0
        config = socket.with_name("tmux.conf")
        config.write_text("set -g history-limit 5000\n")
        bin_ = Path(sys.executable).parent
        environment = {
            **os.environ,
            "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}",
            "LC_ALL": "C.UTF-8",
        }
        # Set here: the shell by which tmux starts this one drops it from the environment.
        shell = r"env PS1='<\# $?> ' bash --norc --noprofile"
        size = ("-x", "100", "-y", "40")
        options = ("-u", "-f", config, "new-session", "-d", *size, "-c", folder, shell)
        self._tmux(*options, environment=environment)
        self.wait_for(_PROMPT.pattern)

    def type(self, line: str, seconds: float = 180) -> Done:
        """Type a line, and wait until the shell is ready for another."""
        self.start(line)
        return self.finish(seconds)

    def start(self, line: str) -> None:
        """Type a line."""
        lines = self.lines()
        self._lines = len(lines) - 1
        self._keys("-l", line)
        self._keys("Enter")
        self._prompt = lines[-1]

    def finish(self, seconds: float = 180) -> Done:
        """Wait until the shell is ready for another line."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            *shown, last = self.lines()
            match = _PROMPT.match(last)
            if match and last != self._prompt:
                return Done(int(match["code"]), "\n".join(shown[self._lines :]))
            time.sleep(0.1)
        raise AssertionError("not ready after so long:\n" + "\n".join(self.lines()))

    def wait_for(self, pattern: str, seconds: float = 180) -> str:
        """Wait until what was typed last shows this; returns all that it shows."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            text = "\n".join(self.lines()[self._lines :])
            if re.search(pattern, text, re.MULTILINE):
                return text
            time.sleep(0.05)
        raise AssertionError(f"no {pattern} after so long:\n" + "\n".join(self.lines()))

    def interrupt(self) -> None:
        """Ctrl-C."""
        self._keys("C-c")

    def lines(self) -> list[str]:
        """All that was shown, wrapped lines joined."""
        shown = self._tmux("capture-pane", "-p", "-J", "-S", "-")
        return [line.rstrip() for line in shown.rstrip().splitlines()] or [""]

    def close(self) -> None:
        """End the shell and what runs in it."""
        self._tmux("kill-server")

    def _keys(self, *keys: str) -> None:
        self._tmux("send-keys", *keys)

    def _tmux(self, *words: object, environment: dict[str, str] | None = None) -> str:
        command = ["tmux", "-S", str(self._socket), *map(str, words)]
        return subprocess.run(
            command, env=environment, check=True, capture_output=True, text=True, timeout=20
        ).stdout


@contextmanager
def terminal(folder: Path) -> Iterator[Terminal]:
    """A terminal whose shell is in ``folder``."""
    with TemporaryDirectory(prefix="mimsuite-tmux-") as place:  # a socket's path must be short
        opened = Terminal(Path(place) / "socket", folder)
        try:
            yield opened
        finally:
            opened.close()
