"""Decoding in a child process: a file that makes a decoder hang, crash or fill memory ends only it.

The time limit counts the child's processor time, so no sample fails because the machine is busy.
Requests and answers are JSON and bytes, never pickles.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import Connection
from multiprocessing.util import Finalize
from typing import Any

import numpy as np

from mimsuite.children import follow_parent
from mimsuite.data.local_file import LocalFile, Stored
from mimsuite.data.unused import notice, noticing
from mimsuite.errors import CorruptSample, DataError, UserError
from mimsuite.waiting import waiting

_PATIENCE = 4  # limit of wall-clock time, as a multiple of the limit of processor time
_START_SECONDS = 60  # time for the imports of a new child, on a busy machine
_LARGEST_ANSWER = 1 << 31
_READY = b"ready"
_MOST_MEMORY = 4 << 30  # limit of memory for decoding, in bytes


class Isolated:
    """One child process, started on first use and restarted after it was killed."""

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._process: subprocess.Popen[bytes] | None = None
        # End the child with this process; `Finalize` also runs in workers, which skip `atexit`.
        Finalize(self, self.close, exitpriority=10)

    def call(
        self, function: str, data: Stored, *, seconds: float, **options: Any
    ) -> tuple[dict[str, Any], bytes]:
        """Call ``module:function(data, **options)`` in the child.

        Args:
            function: returns properties by name, (extension, bytes), or an array.
            data: the child opens a file itself; its content is not sent.
            seconds: limit of processor time.
            options: JSON-serialisable.

        Returns:
            properties and bytes; for an array its ``shape`` and bytes.

        Raises:
            CorruptSample: raised by the function, or the child died or took too long.
            UserError: raised by the function.
            RuntimeError: the child cannot be started.
        """
        if self._process is None:
            self._start()
        request = {"function": function, "seconds": seconds, "options": options}
        if isinstance(data, LocalFile):
            request["file"], data = data.path, b""
        try:
            self._to.send_bytes(json.dumps(request).encode())
            self._to.send_bytes(data)
            if not self._from.poll(_PATIENCE * seconds):
                self.close()
                raise CorruptSample("decode", f"not decoded after {_PATIENCE * seconds:g} s")
            answer = json.loads(self._from.recv_bytes(_LARGEST_ANSWER))
            content = self._from.recv_bytes(_LARGEST_ANSWER)
        except (EOFError, OSError):
            raise self._died(seconds) from None
        if "corrupt" in answer:
            raise CorruptSample(*answer["corrupt"])
        if "wrong" in answer:
            raise UserError(answer["wrong"])
        for what in answer["noticed"]:
            notice(what)
        return answer["figures"], content

    def close(self) -> None:
        """End the child; the next call starts a new one."""
        if self._process is None or self._owner != os.getpid():
            return
        self._process.kill()
        self._process.wait()
        self._to.close()
        self._from.close()
        self._process = None

    def _start(self) -> None:
        # Not by multiprocessing: it would run the user's main script again.
        code = f"from {__name__} import serve; serve({os.getpid()})"
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C reaches only the parent, which ends the child
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to = Connection(os.dup(self._process.stdin.fileno()), readable=False)
        self._from = Connection(os.dup(self._process.stdout.fileno()), writable=False)
        self._process.stdin.close()
        self._process.stdout.close()
        try:
            with waiting("the process that decodes samples, to start"):
                ready = self._from.poll(_START_SECONDS) and self._from.recv_bytes(len(_READY))
        except (EOFError, OSError):
            ready = b""
        if ready != _READY:
            self.close()
            raise RuntimeError("the process that decodes samples could not be started")

    def _died(self, seconds: float) -> DataError:
        assert self._process is not None
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        code = self._process.returncode
        self.close()
        if code == -getattr(signal, "SIGXCPU", 0):
            return CorruptSample("decode", f"not decoded in {seconds:g} s of processor time")
        return CorruptSample("decode", f"the decoder died (exit code {code})")


_shared: list[Isolated] = []


def shared() -> Isolated:
    """The child of this process."""
    if not _shared or _shared[0]._owner != os.getpid():
        _shared[:] = [Isolated()]
    return _shared[0]


def serve(parent: int) -> None:
    """Main loop of the child: serve requests until the parent closes the pipe or dies."""
    follow_parent(parent, signal.SIGKILL)
    requests = Connection(os.dup(0), writable=False)
    answers = Connection(os.dup(1), readable=False)
    answers.send_bytes(_READY)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):  # libraries print messages about files
        os.dup2(nothing, descriptor)
    with suppress(EOFError, OSError):
        while True:
            request = json.loads(requests.recv_bytes())
            answer, content = _answer(request, requests.recv_bytes())
            answers.send_bytes(json.dumps(answer).encode())
            answers.send_bytes(content)


def _answer(request: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    module, _, name = request["function"].partition(":")
    try:
        function: Callable[..., Any] = getattr(import_module(module), name)
        _limit(request["seconds"])
        with noticing() as noticed:
            stored = LocalFile(request["file"]) if "file" in request else data
            result = function(stored, **request["options"])
    except CorruptSample as fault:
        return {"corrupt": [fault.kind, str(fault)]}, b""
    except UserError as fault:
        return {"wrong": str(fault)}, b""
    except Exception as fault:  # decoders raise many types on damaged input
        text = f"{type(fault).__name__}: {' '.join(str(fault).split())[:160]}"
        return {"corrupt": ["decode", text]}, b""
    figures, content = result, b""
    if isinstance(result, np.ndarray):
        figures, content = {"shape": result.shape}, np.ascontiguousarray(result).tobytes()
    elif isinstance(result, tuple):
        figures, content = {"extension": result[0]}, result[1]
    return {"figures": figures, "noticed": noticed}, content


def _limit(seconds: float) -> None:
    """Limit processor time (from now on) and memory; the kernel enforces both."""
    try:
        import resource
    except ImportError:  # on Windows; the parent's clock still limits the time
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    ending = math.ceil(used.ru_utime + used.ru_stime + seconds)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    if hard == resource.RLIM_INFINITY or ending <= hard:
        resource.setrlimit(resource.RLIMIT_CPU, (ending, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    with suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_DATA, (_data_bytes() + _MOST_MEMORY, hard))


def _data_bytes() -> int:
    """Memory that the process uses now, in bytes."""
    with suppress(OSError, ValueError), open("/proc/self/status", "rb") as status:
        for line in status:
            if line.startswith(b"VmData:"):
                return int(line.split()[1]) << 10
    return 4 << 30
