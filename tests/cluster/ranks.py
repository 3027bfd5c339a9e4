"""Ranks forked from one process that has imported everything: what they do, not imports, takes
the time of a test.

As a program: a JSON job a line on stdin, the exit codes of its ranks on stdout.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from mimsuite.cluster.port import free_port


class Ranks:
    """Starts commands as several processes at once, and waits for them."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "ranks.log"
        self._driver = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, *words: object, ranks: int = 2, **environment: str) -> tuple[list[int], str]:
        """``mimsuite WORDS`` as so many ranks -> their exit codes, and all that they said."""
        return self._do({"words": list(map(str, words))}, ranks, environment)

    def call(self, function: str, *arguments: str, ranks: int = 2) -> tuple[list[int], str]:
        """A function, as ``FILE:NAME``, called with strings by so many ranks."""
        return self._do({"call": function, "words": arguments}, ranks, {})

    def _do(self, job: dict[str, Any], ranks: int, environment: dict) -> tuple[list[int], str]:
        self._log.write_text("")
        job |= {"ranks": ranks, "environment": environment, "log": str(self._log)}
        assert self._driver.stdin is not None
        assert self._driver.stdout is not None
        self._driver.stdin.write(json.dumps(job) + "\n")
        self._driver.stdin.flush()
        return json.loads(self._driver.stdout.readline()), self._log.read_text()

    def close(self) -> None:
        assert self._driver.stdin is not None
        self._driver.stdin.close()
        self._driver.wait(timeout=30)


def main() -> None:

    import mimsuite.evaluate
    import mimsuite.train.run  # noqa: F401
    from mimsuite.cli.main import main as mimsuite_main

    for line in sys.stdin:
        job = json.loads(line)
        port = str(free_port())
        pids = [fork(job, rank, port, mimsuite_main) for rank in range(job["ranks"])]
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        print(json.dumps(codes), flush=True)
    os._exit(0)  # nothing to tidy up, and torch takes seconds for it


def fork(job: dict[str, Any], rank: int, port: str, command: Any) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        sink = os.open(job["log"], os.O_WRONLY | os.O_APPEND)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        os.environ.update(job["environment"])
        if job["ranks"] > 1:
            os.environ |= {
                "RANK": str(rank), "WORLD_SIZE": str(job["ranks"]), "LOCAL_RANK": str(rank),
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
            }  # fmt: skip
        if "call" in job:
            file, _, name = job["call"].rpartition(":")
            space: dict[str, Any] = {"__name__": "ranks"}
            exec(compile(Path(file).read_text(), file, "exec"), space)
            code = space[name](*job["words"]) or 0
        else:
            code = command(job["words"])
        sys.stdout.flush()
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
