"""No child outlives its parent, whichever way that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PRETRAIN = (
    "pretrain", "image/mae-tiny-fashion", "--smoke", "schedule.epochs=900", "data.workers=2",
    "log.every_steps=1",
)  # fmt: skip
pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")


def descendants(pid: int) -> set[int]:
    """Processes below one, zombies left out."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if state != "Z":
                parents[int(entry.name)] = int(parent)
    found, more = set(), {pid}
    while more:
        more = {child for child, parent in parents.items() if parent in more} - found
        found |= more
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(done, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not done() and time.monotonic() < deadline:
        time.sleep(0.1)
    return done()


def start(*words: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *words], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def demo(out: Path) -> subprocess.Popen:
    """The demo, whose first command trains for long."""
    code = f"""
        from mimsuite.demo.commands import run_command
        run_command(*{PRETRAIN!r}, "--out", {str(out)!r})
    """
    return start("-c", textwrap.dedent(code))


def procs(out: Path) -> subprocess.Popen:
    return start("-m", "mimsuite", *PRETRAIN, "--out", str(out), "--procs", "2")


@pytest.mark.parametrize(
    ("begin", "number"),
    [(demo, signal.SIGTERM), (demo, signal.SIGKILL), (procs, signal.SIGKILL)],
)
def test_no_child_is_left(begin, number, tmp_path):
    out = tmp_path / "run"
    parent = begin(out)
    metrics = out / "metrics.jsonl"
    assert wait_until(lambda: metrics.exists() and metrics.stat().st_size > 0, 60)
    below = descendants(parent.pid)
    assert len(below) >= 3  # a run and its two loader processes, at least
    parent.send_signal(number)
    try:
        parent.wait(timeout=30)
    finally:
        parent.kill()  # its children follow
    assert wait_until(lambda: not any(map(is_alive, below)), 15)
    assert (out / "PREEMPTED").exists()  # the run itself was told, and has saved
    if begin is demo and number != signal.SIGKILL:
        assert parent.returncode == 128 + number


def test_a_decoding_child_ends_with_a_killed_parent():
    code = """
        import os, time
        from mimsuite.data.packing.isolated import Isolated
        child = Isolated()
        child._start()
        print(child._process.pid, flush=True)
        os.fork()  # the fork keeps the pipe open: no end of file tells the child
        time.sleep(60)
    """
    words = [sys.executable, "-c", textwrap.dedent(code)]
    parent = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE)
    decoder = int(parent.stdout.readline())
    assert wait_until(lambda: len(descendants(parent.pid)) == 2, 60)
    below = descendants(parent.pid)
    try:
        parent.kill()
        parent.wait()
        assert wait_until(lambda: not is_alive(decoder), 15)
    finally:
        for pid in filter(is_alive, below):
            os.kill(pid, signal.SIGKILL)


def test_a_decoding_child_starts_without_torch():
    """One child a loader worker: torch would take seconds and 200 MB in each."""
    code = "import mimsuite.data.packing.isolated, sys; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT) == b"False\n"


@pytest.mark.parametrize(
    ("number", "ignored", "code"),
    [
        (signal.SIGINT, False, -signal.SIGINT),
        (signal.SIGHUP, False, -signal.SIGTERM),  # a terminal that has gone: save and end
        (signal.SIGUSR1, False, -signal.SIGUSR1),
        (signal.SIGHUP, True, 0),  # nohup
    ],
)
def test_signals_are_passed_on(number, ignored, code):
    """In a process of its own: training that ran here before counts signals, and ends at two."""
    words = [sys.executable, "-c", PASSING, str(int(number)), str(int(ignored))]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == [str(int(code)), "0" if ignored else str(int(number))], (
        done.stderr
    )


PASSING = """
import signal, subprocess, sys
from mimsuite.children import passing_signals_on, start_child

number, ignored = map(int, sys.argv[1:])
signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
program = "import signal, time; signal.signal(2, signal.SIG_DFL); print(); time.sleep(1.5)"
children = []
with passing_signals_on(children) as signalled:
    children.append(start_child([sys.executable, "-c", program], stdout=subprocess.PIPE))
    children[0].stdout.readline()
    signal.raise_signal(number)
    print(children[0].wait(timeout=30), signalled())
"""
