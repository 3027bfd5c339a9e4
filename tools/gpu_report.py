#!/usr/bin/env python3
"""What one GPU proves in ten minutes, as one table.

    python tools/gpu_report.py --out build/gpu
    python tools/gpu_report.py --out build/gpu --device cpu

The parts run in order of worth, each in a process of its own under a limit, so that a crash or the
end of the time costs only what comes behind it. Findings are JSON lines in ``OUT/findings.jsonl``;
a second start goes on where the first ended. ``--device cpu`` is a dry run: tiny sizes, no claims.
``--page docs/gpu.md`` writes the table into that page.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

TOOLS = Path(__file__).resolve().parent
sys.path[:0] = [str(TOOLS), str(TOOLS.parent)]

from gpu_parts.findings import END, Finding, Findings  # noqa: E402
from gpu_parts.table import summary, table, write  # noqa: E402

# Module of each part, by order of worth, and the most seconds that it may take on a GPU.
PARTS = {
    "machine": 30,
    "recipes": 130,
    "parity": 90,
    "rates": 140,
    "one_rank": 60,
    "bits": 110,
    "loading": 90,
    "goldens": 110,
}
DRY_FACTOR = 20  # a dry run on a busy CPU may take this many times longer
AT_LEAST = 12  # seconds below which no part is started


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("build/gpu"))
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--seconds", type=float, default=570, help="for all parts together")
    parser.add_argument("--parts", nargs="+", choices=[*PARTS], default=[*PARTS])
    parser.add_argument("--page", type=Path, help="page with markers for the table")
    parser.add_argument("--one", choices=[*PARTS], help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.one:
        return run_one(options.one, options.device, options.out)
    if options.device == "cuda" and not _sees_a_gpu():
        print("gpu_report: no CUDA device is visible; --device cpu is the dry run", file=sys.stderr)
        return 2
    until = time.monotonic() + options.seconds * (DRY_FACTOR if options.device == "cpu" else 1)
    for part in options.parts:
        start_part(part, options, until)
    found = Findings(options.out / "findings.jsonl").read()
    text = table(found)
    holds, fails, measured = summary(found)
    line = f"{holds} hold, {fails} fail, {measured} are measured only."
    print(f"{text}\n\n{line}")
    if options.page:
        write(options.page, f"{headline(found)}\n\n{text}\n\n{line}")
    return 1 if fails else 0


def start_part(part: str, options: argparse.Namespace, until: float) -> None:
    """Run a part in a process of its own, unless it has ended before or no time is left."""
    findings = Findings(options.out / "findings.jsonl", part)
    if findings.ended():
        return
    left = until - time.monotonic()
    if left < AT_LEAST:
        print(f"{part}: no time left; a second start goes on here", file=sys.stderr)
        return
    limit = min(left, PARTS[part] * (DRY_FACTOR if options.device == "cpu" else 1))
    words = ["--one", part, "--device", options.device, "--out", str(options.out)]
    begun = time.monotonic()
    with (options.out / f"{part}.log").open("a") as log:
        child = subprocess.Popen(
            [sys.executable, __file__, *words], stdout=log, stderr=log, start_new_session=True
        )
        try:
            code = child.wait(limit)
            said = f"exit {code}" if code else ""
        except subprocess.TimeoutExpired:
            said = f"cut off after {limit:.0f} s"
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)  # and the commands that it started
                child.wait()
    seconds = time.monotonic() - begun
    print(f"{part}: {seconds:.0f} s {said}", file=sys.stderr)
    if not said:
        findings.add(END, True, seconds=seconds)
    elif not said.startswith("cut"):  # one cut off goes on in a second start
        findings.add(END, False, said=said, log=f"{part}.log")


def run_one(part: str, device: str, out: Path) -> int:
    """Run a part in this process."""
    import torch
    from gpu_parts.stage import Stage

    work = out / "work"
    work.mkdir(exist_ok=True)
    os.environ["MIMSUITE_CACHE"] = str((work / "cache").resolve())
    os.environ.setdefault("WDS_SECURE", "1")
    paths = [str(TOOLS.parent), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))  # for the commands
    if device == "cpu":
        torch.set_num_threads(1)
    place = torch.device(device, 0) if device == "cuda" else torch.device(device)
    findings = Findings(out / "findings.jsonl", part)
    importlib.import_module(f"gpu_parts.{part}").run(Stage(place, work.resolve(), out, findings))
    return 0


def headline(found: list[Finding]) -> str:
    """Card and versions that the figures are of."""
    facts = next((f.figures for f in found if f.name == "machine"), {})
    names = ("device", "torch", "cuda", "python")
    return "Measured on: " + ", ".join(f"{n} {facts[n]}" for n in names if n in facts) + "."


def _sees_a_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


if __name__ == "__main__":
    sys.exit(main())
