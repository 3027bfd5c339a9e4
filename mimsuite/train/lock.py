"""One run directory, one run: two that resume at once would overwrite each other's state."""

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
    """Holds a run directory from :meth:`take` until the context ends, or the process does.

    It is a POSIX lock: unlike ``flock`` it is not shared by the loader's forked workers, which may
    outlive a killed process for a moment. File systems without locks are trusted.
    """

    def __init__(self) -> None:
        self._file: TextIO | None = None

    def take(self, run: Path) -> None:
        """Take the lock of a directory that exists; does nothing where it is held already.

        Raises:
            UserError: another process holds it; names that.
        """
        if self._file is not None:
            return
        try:
            file = (run / _NAME).open("a+")
        except OSError:  # a read-only or full disk is for others to report
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
        except OSError:  # a full disk: held all the same, without a name
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
