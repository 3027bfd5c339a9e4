"""What training changes of its process is undone when the process goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mimsuite.cli.main import main
from mimsuite.train.preempt import StopFlag, restore_handlers

WORDS = "pretrain image/mae-tiny-fashion --smoke schedule.epochs=1 data.per_class=null --device cpu"
NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


def test_a_command_gives_the_signals_back(tmp_path: Path) -> None:
    before = {n: signal.getsignal(n) for n in NUMBERS}
    assert main([*WORDS.split(), "--out", str(tmp_path / "run")]) == 0
    assert {n: signal.getsignal(n) for n in NUMBERS} == before
    assert signal.set_wakeup_fd(-1) == -1
    time.sleep(0.1)
    assert "stop signals" not in {thread.name for thread in threading.enumerate()}


def test_so_does_one_that_fails_once_they_are_handled(tmp_path: Path) -> None:
    before = {n: signal.getsignal(n) for n in NUMBERS}
    assert main(["pretrain", "image/no-such-recipe", "--out", str(tmp_path / "run")]) == 2
    assert {n: signal.getsignal(n) for n in NUMBERS} == before


@pytest.mark.filterwarnings("ignore")
def test_flags_follow_each_other() -> None:
    """Two signals to one flag end the process; one to each of three does not."""
    came = []
    kept = signal.signal(signal.SIGUSR1, lambda number, frame: came.append(number))
    try:
        for _ in range(3):
            flag = StopFlag().install()
            os.kill(os.getpid(), signal.SIGUSR1)
            assert flag.name == "SIGUSR1"
        restore_handlers()
        assert not came
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.6)
        assert came == [signal.SIGUSR1] * 2
        assert flag.name == "SIGUSR1"
    finally:
        restore_handlers()
        signal.signal(signal.SIGUSR1, kept)


MEMORY = """
import ctypes
from pathlib import Path
from mimsuite.train.memory import keep_freed_memory

libc = ctypes.CDLL("libc.so.6")
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

def resident():
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) // 1024

def use():
    for size in (200, 40, 8):
        block = libc.malloc(size << 20)
        ctypes.memset(block, 1, size << 20)
        libc.free(block)

use()
before = resident()
with keep_freed_memory():
    use()
    assert resident() - before > 150, resident() - before
assert resident() - before < 60, resident() - before
use()
assert resident() - before < 60, resident() - before
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and speaks to glibc")
def test_freed_memory_goes_back_to_the_kernel() -> None:
    subprocess.run([sys.executable, "-c", MEMORY], check=True, timeout=120)
