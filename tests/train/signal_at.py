"""Starts `mimsuite` with a stop signal at an exact moment.

A moment is an audit event of Python (PEP 578): what the process imports, opens or renames, and what
the method of the test calls out. Nothing of the suite is replaced. Used in two ways:

* ``python signal_at.py`` takes one job a line (JSON: ``words``, ``moment``, ``log``), forks for
  each and answers with its exit code, so that torch is imported once for many starts;
* as ``sitecustomize`` of a real process, with the moment in ``$SIGNAL_AT``.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
import time


def arm(moment: dict | None) -> None:
    """Send this process signals at a moment.

    Keys of ``moment``: ``event``; ``matches``, a pattern in its first argument; ``nth`` such event
    of a process (1); ``signals``, their names; ``pause``, seconds before the first of them;
    ``stuck``: they come while this thread is inside native code for a long time. The event may be
    one of a loader worker, too: the signals still go to the main process.
    """
    if moment is None:
        return
    main, seen = os.getpid(), 0
    pattern = re.compile(moment.get("matches", ""))

    def hook(event: str, arguments: tuple) -> None:
        nonlocal seen
        if event != moment["event"] or not pattern.search(str(arguments[0])):
            return
        seen += 1
        if seen == moment.get("nth", 1):
            time.sleep(moment.get("pause", 0))
            if moment.get("stuck"):
                threading.Timer(0.2, send).start()
                numpy.linalg.svd(numpy.ones((4000, 4000)))
            else:
                send()
                time.sleep(5 if len(moment["signals"]) > 1 else 0)
            if len(moment["signals"]) > 1:  # the last of them ends the process before this
                print("still alive", file=sys.stderr, flush=True)

    def send() -> None:
        for name in moment["signals"]:
            os.kill(main, getattr(signal, name))
            time.sleep(0.1 if moment.get("stuck") else 0)

    sys.addaudithook(hook)


def start(job: dict) -> int:
    """Fork ``mimsuite WORDS``; returns its exit code, negative where a signal ended it."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 1
    try:
        sink = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        sys.argv = ["mimsuite", *job["words"]]
        arm(job["moment"])
        code = mimsuite(job["words"])
    finally:
        os._exit(code)


if __name__ == "__main__":
    import matplotlib.figure  # noqa: F401  (all of these: imported before the first fork)
    import numpy

    import mimsuite.evaluate.tuning.finetune
    import mimsuite.export
    import mimsuite.train.run
    from mimsuite.cli.main import main as mimsuite

    for line in sys.stdin:
        print(start(json.loads(line)), flush=True)
elif "SIGNAL_AT" in os.environ:
    arm(json.loads(os.environ["SIGNAL_AT"]))
