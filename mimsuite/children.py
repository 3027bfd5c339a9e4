"""Child processes that never outlive their parent, however it ends.

The parent passes stop signals on (:func:`passing_signals_on`). Where it is killed, a thread of the
child notices (:func:`follow_parent`) and ends the child. Torch-free.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

PARENT = "MIMSUITE_PARENT"  # in a child's environment: the process that it follows
_LOOK_SECONDS = 0.5
_GRACE_SECONDS = 30.0  # for a child to save and end by itself
_STOPS = tuple(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
)
_HANGUP = getattr(signal, "SIGHUP", None)


def start_child(words: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
    """Start a program that calls :func:`follow_parent` itself, as ``mimsuite`` does.

    Args:
        options: of ``subprocess.Popen``. It gets a process group of its own: what a terminal sends
            reaches it through the parent, once.
    """
    environment = {**(options.pop("env", None) or os.environ), PARENT: str(os.getpid())}
    return subprocess.Popen(words, env=environment, start_new_session=True, **options)


@contextmanager
def passing_signals_on(children: Sequence[subprocess.Popen[Any]]) -> Iterator[Callable[[], int]]:
    """While the block lasts, pass stop signals on to the children; at its end none is left.

    Args:
        children: may grow meanwhile.

    Yields:
        what says the last signal that came, 0 for none.
    """
    came = [0]

    def pass_on(number: int, frame: FrameType | None) -> None:
        came[0] = number
        for child in children:
            if child.poll() is None:
                # A terminal that has gone is a reason to save and end.
                child.send_signal(signal.SIGTERM if number == _HANGUP else number)

    # nohup: a hang-up that is ignored stays so.
    numbers = [n for n in _STOPS if n != _HANGUP or signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, pass_on) for number in numbers}
    try:
        yield lambda: came[0]
    finally:
        for child in children:
            if child.poll() is None:
                child.kill()
            child.wait()
        for number, handler in before.items():
            signal.signal(number, handler)


def follow_parent(parent: int | None = None, number: int = signal.SIGTERM) -> None:
    """End this process when its parent has ended: by a signal, and after a while by force.

    Not by the kernel's PR_SET_PDEATHSIG, which goes by the thread that started the child and ends
    it with that thread; and there is none on macOS.

    Args:
        parent: its process id; None: as :func:`start_child` wrote it, or nothing is followed.
    """
    if parent is None:
        parent = int(os.environ.pop(PARENT, 0) or 0)
    if parent:
        threading.Thread(target=_follow, args=(parent, number), daemon=True, name="parent").start()


def _follow(parent: int, number: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    os.kill(os.getpid(), number)
    time.sleep(_GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)
