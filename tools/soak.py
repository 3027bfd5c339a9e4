"""Kill training at random moments, resume it, and compare with a run that nobody disturbed.

    python tools/soak.py                        100 kills of a single process
    python tools/soak.py --kills 20 --ranks 3   20 kills, each of one of three ranks

A kill is SIGKILL, so nothing can be tidied up. After each the newest checkpoint must verify. Runs
that reached their end must equal the undisturbed one in every byte of model, optimizer, moving
average and generator states, and in every logged loss and gradient norm; the first difference is
printed with its step or tensor.

Torch is imported once; each start is a fork, so that kills and not imports take the time.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

from safetensors.numpy import load_file

from mimsuite.children import follow_parent
from mimsuite.cli.main import main as mimsuite
from mimsuite.cluster.port import free_port
from mimsuite.train import checkpoint
from mimsuite.train import run as _loaded  # noqa: F401  (imported before the first fork)

STEPS_PER_EPOCH, EPOCHS = 8, 8
STEPS = EPOCHS * STEPS_PER_EPOCH
KEYS = (
    "image/mae-tiny-fashion",
    "--smoke",
    "model.encoder.width=64",
    "model.encoder.drop_path=0.1",
    "train.ema=0.9",
    f"schedule.epochs={EPOCHS}",
    "log.every_steps=1",
    "log.pictures_every_epochs=null",
    "checkpoint.every_steps=2",
    "checkpoint.every_minutes=null",
    "train.timeout_seconds=10",
)
GRACE = 5.0  # seconds; as of `--procs` and of srun --kill-on-bad-exit


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill and resume training, and compare.")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--in-saves", type=int, default=None, help="kills inside a save, at least")
    parser.add_argument("--seed", type=int, default=None, help="of the moments; default: any")
    options = parser.parse_args()
    seed = random.randrange(1 << 32) if options.seed is None else options.seed
    wanted = options.kills // 5 if options.in_saves is None else options.in_saves
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        report = soak(Path(folder), options.kills, options.ranks, wanted, random.Random(seed))
    report["seed"] = seed
    print(json.dumps(report))
    for line in report["differences"]:
        print(f"DIFFERENCE {line}", file=sys.stderr)
    return 1 if report["differences"] or report["corrupt_latest"] else 0


def soak(
    folder: Path, kills: int, ranks: int, in_saves: int, chance: random.Random
) -> dict[str, Any]:
    """Runs until there were enough kills, of them ``in_saves`` inside a save; then the verdict."""
    begun = time.monotonic()
    undisturbed = folder / "undisturbed"
    took = -time.monotonic()
    if wait(start(undisturbed, ranks)) != [0] * ranks:
        sys.stderr.write(undisturbed.with_suffix(".log").read_text())
        raise SystemExit("the undisturbed run failed: nothing to compare with")
    took += time.monotonic()
    report: dict[str, Any] = {
        "kills": 0, "in_saves": 0, "resumed": 0, "corrupt_latest": 0, "runs": 0, "differences": []
    }  # fmt: skip
    while report["kills"] < kills or report["in_saves"] < in_saves:
        out = folder / f"run-{report['runs']:03d}"
        disturb(out, ranks, took, chance, report)
        report["runs"] += 1
        report["differences"] += [f"{out.name}: {line}" for line in differences(out, undisturbed)]
        steps = [row["step"] for row in rows(out / "events.jsonl") if row["event"] == "resume"]
        report["resumed"] += len(steps)
        shutil.rmtree(out)
    report["seconds"] = round(time.monotonic() - begun, 1)
    return report


def disturb(
    out: Path, ranks: int, took: float, chance: random.Random, report: dict[str, Any]
) -> None:
    """One run, killed a few times and resumed each time, until it ends."""
    for _ in range(chance.randrange(2, 8)):
        processes = start(out, ranks)
        moment = time.monotonic() + chance.uniform(0.02, took)
        # Every other kill waits, from its moment on, for a save to be under way.
        saving = chance.random() < 0.5
        while alive(processes) == ranks:
            if time.monotonic() >= moment and (not saving or is_saving(out)):
                os.kill(chance.choice(processes), signal.SIGKILL)
                report["kills"] += 1
                report["in_saves"] += is_saving(out)
                break
            time.sleep(0.0005)
        end(processes)
        _, rejected = checkpoint.newest(out) if out.is_dir() else (None, [])
        if rejected:
            report["corrupt_latest"] += 1
            report["differences"].append(f"{out.name}: {rejected[0]}")
        if (out / "DONE").exists():
            return
    codes = wait(start(out, ranks))
    if codes != [0] * ranks:
        report["differences"].append(f"{out.name}: the last start ended with {codes}")


def is_saving(out: Path) -> bool:
    return any((out / "checkpoints").glob(".tmp-*"))


def start(out: Path, ranks: int) -> list[int]:
    """Fork the ranks of a run; returns their pids."""
    port = free_port()
    return [fork(out, rank, ranks, port) for rank in range(ranks)]


def fork(out: Path, rank: int, ranks: int, port: int) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        follow_parent(parent, signal.SIGKILL)
        sink = os.open(out.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        if ranks > 1:
            os.environ |= {
                "RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_RANK": str(rank),
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
            }  # fmt: skip
        batch = ranks * -(-16 // ranks)
        sizes = [f"train.global_batch={batch}", f"data.limit={STEPS_PER_EPOCH * batch}"]
        code = mimsuite(["pretrain", *KEYS, *sizes, "--out", str(out), "--resume", "auto"])
    finally:
        os._exit(code)


def alive(processes: list[int]) -> int:
    return sum(os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
               for pid in processes)  # fmt: skip


def end(processes: list[int]) -> None:
    """Wait for the ranks that were not killed, as long as launchers do, then kill them too."""
    deadline = time.monotonic() + GRACE
    while alive(processes) and time.monotonic() < deadline:
        time.sleep(0.01)
    for pid in processes:  # not reaped yet, so the number is still theirs
        os.kill(pid, signal.SIGKILL)
    wait(processes)


def wait(processes: list[int]) -> list[int]:
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in processes]


def differences(ours: Path, wanted: Path) -> list[str]:
    """The first difference in what was logged, and the first in each file of the last save."""
    found = []
    for one, other in zip(figures(ours), figures(wanted), strict=False):
        if one != other:
            found.append(f"step {other[0]}: logged {one}, not {other}")
            break
    if len(figures(ours)) != STEPS:
        found.append(f"{len(figures(ours))} logged steps, not {STEPS}")
    last = f"checkpoints/step-{STEPS:08d}"
    for file in sorted((wanted / last).glob("*.safetensors")):
        mine = ours / last / file.name
        if not mine.exists():
            found.append(f"{file.name}: missing")
        elif mine.read_bytes() != file.read_bytes():
            one, other = load_file(mine), load_file(file)
            names = [n for n in other if n not in one or one[n].tobytes() != other[n].tobytes()]
            found.append(f"{file.name}: {names[0] if names else 'header'} differs")
    return found


def figures(out: Path) -> list[tuple[Any, ...]]:
    return [(row["step"], row["loss"], row["grad_norm"]) for row in rows(out / "metrics.jsonl")]


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


if __name__ == "__main__":
    sys.exit(main())
