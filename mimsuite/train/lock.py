"""Lock of a run directory: two processes that resume the same run would overwrite each other."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from pathlib import Path
from types import TracebackType
from typing import TextIO

from mimsuite.errors import UserError

_NAME = ".lock"
_HELD = (errno.EACCES, errno.EAGAIN)


class RunLock:
    """Locks a run directory from :meth:`take` until the context or the process ends.

    It is a POSIX lock: unlike ``flock`` it is not inherited by forked loader workers, which may
    briefly outlive a killed process. On file systems without locks, nothing is checked.
    """

    def __init__(self) -> None:
        self._file: TextIO | None = None

    def take(self, run: Path) -> None:
        """Lock an existing directory; does nothing if this lock is already held.

        Raises:
            UserError: another process holds the lock; the message names it.
        """
        if self._file is not None:
            return
        try:
            file = (run / _NAME).open("a+")
        except OSError:  # read-only or full disk: later writes report it
            return
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _holder(file)
            file.close()
            if error.errno not in _HELD:
                return
            raise UserError(
                f"run directory {run} is in use by {holder}: wait for it, stop it, or choose "
                f"another --out"
            ) from None
        self._file = file
        try:
            file.truncate(0)
            file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}) + "\n")
            file.flush()
        except OSError:  # full disk: the lock is held, but without the holder's name
            pass

    def __enter__(self) -> RunLock:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _holder(file: TextIO) -> str:
    try:
        file.seek(0)
        found = json.loads(file.read())
        return f"process {found['pid']} on {found['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
