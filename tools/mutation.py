"""Change one place of a module, see whether a test fails, and table the changes that none noticed.

    python tools/mutation.py --each 10               10 changes (mutants) of each module
    python tools/mutation.py --rooms noise schedules
    python tools/mutation.py --again                 survivors only, after new tests
    python tools/mutation.py --table                 the table so far; runs nothing

Results go to ``build/mutation`` one by one, so a killed campaign goes on where it was. A result
holds until its module changes; a survivor's until ``--again``. The sample of a module is drawn
with a fixed seed, so a larger ``--each`` adds to a smaller one.

Each mutant is judged by the tests that reach its line, found once per test file with coverage.py.
Libraries are imported once; each test file and each mutant is a fork, and Python processes that
tests start see the mutant as well. Limits are in CPU time, so a busy machine kills no mutant.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "build" / "mutation"
RESULTS, REACH = OUT / "results.jsonl", OUT / "reach"
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]
from mutation_rooms import EQUIVALENT, ROOMS  # noqa: E402
from mutation_sites import Mutant, mutants, mutated  # noqa: E402

CPU_SECONDS, NODES = 8.0, 60  # per mutant: most time and most tests, the fastest first
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux
PLUGINS = ["-p", "no:cacheprovider", "-p", "_hypothesis_pytestplugin"]
PYTEST = [*PLUGINS, "-x", "-q", "--tb=no", "--no-header", f"--rootdir={ROOT}"]
CHOSEN = ["-m", "not slow and not gpu and not slurm"]
# Read by every Python process below a mutant: the module is compiled from the mutant's source.
SITE = """
import importlib.machinery, importlib.util, os, pathlib, sys
class Loader(importlib.machinery.SourceFileLoader):
    def get_code(self, name):
        return compile(pathlib.Path(os.environ["MUTANT_SOURCE"]).read_text(), self.path, "exec")
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == os.environ.get("MUTANT_MODULE"):
            file = os.environ["MUTANT_FILE"]
            return importlib.util.spec_from_file_location(name, file, loader=Loader(name, file))
sys.meta_path.insert(0, Finder)
"""


def preload() -> None:
    """Libraries that most tests need, and nothing of the suite."""
    import coverage
    import hypothesis
    import pydantic
    import timm
    import torch.distributed.fsdp
    import torchvision
    import typer.testing
    import webdataset

    _ = coverage, hypothesis, pydantic, timm, torch, torchvision, typer, webdataset


# --- processes ------------------------------------------------------------------------------------


def in_child(work: Callable[[], int], cpu: float, log: Path) -> int:
    """Exit code of work in a fork; 124 if it, or what it starts, uses up its time."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            os.setsid()
            ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
            resource.setrlimit(resource.RLIMIT_CPU, (int(cpu) + 1, int(cpu) + 2))
            with log.open("w") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            code = work()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    end, code = time.monotonic() + 6 * cpu, None
    while code is None:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
        elif time.monotonic() > end:
            os.killpg(pid, signal.SIGKILL)
        else:
            time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):  # children that outlived the tests
        os.killpg(pid, signal.SIGKILL)
    return 124 if code < 0 else code


def pytest_in_child(arguments: list[str], plugins: Iterable[object] = ()) -> int:
    """Run tests in this process (a fork), in a folder that is removed afterwards."""
    os.environ.update(MIMSUITE_REQUIRE="1", OMP_NUM_THREADS="1")
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    base = OUT / "tmp"
    shutil.rmtree(base, ignore_errors=True)
    return int(pytest.main([*PYTEST, f"--basetemp={base}", *arguments], [*plugins]))


# --- which tests reach which line -----------------------------------------------------------------


class Watch:
    """Pytest plugin: time and verdict of each test, and the lines that it runs."""

    def __init__(self, files: list[str]) -> None:
        import coverage

        self.coverage = coverage.Coverage(data_file=None, include=files, config_file=False)
        self.seconds: dict[str, float] = {}
        self.failed: set[str] = set()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: Any, nextitem: Any) -> Any:
        self.coverage.switch_context(item.nodeid)
        start = time.process_time()
        result = yield
        self.seconds[item.nodeid] = time.process_time() - start
        self.coverage.switch_context("")
        return result

    def pytest_runtest_logreport(self, report: Any) -> None:
        if not report.passed:
            self.failed.add(report.nodeid)

    def lines(self) -> dict[str, dict[str, list[str]]]:
        data = self.coverage.get_data()
        found = {}
        for file in data.measured_files():
            module = str(Path(file).relative_to(ROOT))
            lines = data.contexts_by_lineno(file).items()
            found[module] = {str(line): [c for c in names if c] for line, names in lines}
        return found


def watch(test_file: str, modules: list[str], to: Path) -> int:
    plugin = Watch([str(ROOT / module) for module in modules])
    plugin.coverage.start()
    pytest_in_child([*CHOSEN, "--maxfail=1000", test_file], [plugin])
    plugin.coverage.stop()
    seconds = {k: v for k, v in plugin.seconds.items() if k not in plugin.failed}
    to.write_text(json.dumps({"seconds": seconds, "lines": plugin.lines()}))
    return 0


def reach(room: str) -> list[dict[str, Any]]:
    """For each test file of a room: seconds of its tests, and the tests of each line."""
    patterns, modules = ROOMS[room][1], [m for files, _ in ROOMS.values() for m in sources(files)]
    texts = "".join((ROOT / module).read_text() for module in modules)
    found = []
    for test in tests_of(patterns):
        text = (ROOT / test.partition("::")[0]).read_text() + texts
        kept = REACH / f"{test.replace('/', '.')}-{digest(text)}.json"
        if not kept.exists():
            start = time.time()
            in_child(lambda t=test, k=kept: watch(t, modules, k), 900, OUT / "reach.log")  # type: ignore[misc]
            if not kept.exists():
                raise SystemExit(f"{test} could not be run: see {OUT / 'reach.log'}")
            print(f"  {test}: {time.time() - start:.0f} s", flush=True)
        found.append(json.loads(kept.read_text()))
    return found


def tests_of(patterns: Iterable[str]) -> list[str]:
    """Files of tests; ``file::test`` is a single test of a slow file."""
    single = {pattern for pattern in patterns if "::" in pattern}
    files = {p for pattern in patterns if "::" not in pattern for p in ROOT.glob(pattern)}
    return sorted(single | {str(p.relative_to(ROOT)) for p in files})


def judges(module: str, line: int, reached: list[dict[str, Any]]) -> list[str]:
    """The fastest tests that run a line; those that run anything of the module if none does."""
    seconds: dict[str, float] = {}
    exact: set[str] = set()
    for part in reached:
        seconds |= part["seconds"]
        exact |= {*part["lines"].get(module, {}).get(str(line), [])}
    names = exact & seconds.keys() or {
        name
        for part in reached
        for names in part["lines"].get(module, {}).values()
        for name in names
        if name in seconds
    }
    # One case of each test function, then the next ones: other cases rarely notice more.
    ordered, cases = sorted(names, key=lambda name: (seconds[name], name)), Counter[str]()
    turns = []
    for name in ordered:
        function = name.partition("[")[0]
        turns.append((cases[function], seconds[name], name))
        cases[function] += 1
    chosen, total = [], 0.0
    for _, cost, name in sorted(turns)[:NODES]:
        total += cost
        if total > CPU_SECONDS and chosen:
            break
        chosen.append(name)
    return chosen


# --- mutants --------------------------------------------------------------------------------------


def sources(patterns: Iterable[str]) -> list[str]:
    paths = sorted(p for pattern in patterns for p in ROOT.glob(pattern) if p.stem != "__init__")
    return [str(p.relative_to(ROOT)) for p in paths]


def digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def judge(module: str, source: str, tests: list[str]) -> str:
    """``killed``, ``timeout`` or ``survived``; ``unreached`` if no test runs the module."""
    if not tests:
        return "unreached"
    path = OUT / "mutant.py"
    path.write_text(source)

    def work() -> int:
        os.environ["MUTANT_SOURCE"], os.environ["MUTANT_FILE"] = str(path), str(ROOT / module)
        os.environ["MUTANT_MODULE"] = module.removesuffix(".py").replace("/", ".")
        os.environ["PYTHONPATH"] = f"{OUT / 'site'}{os.pathsep}{ROOT}"
        exec(SITE, {})
        return pytest_in_child(tests)

    code = in_child(work, 4 * CPU_SECONDS + 30, OUT / "mutant.log")
    return {0: "survived", 124: "timeout"}.get(code, "killed")


def campaign(rooms: list[str], each: int, again: bool) -> None:
    """Judge what is still to be judged, each result kept at once."""
    preload()
    kept = results()
    for room in rooms:
        print(room, flush=True)
        reached = reach(room)
        for module in sources(ROOMS[room][0]):
            text = (ROOT / module).read_text()
            sample = drawn(text, each)
            if again:
                survived = [m for m in mutants(text) if verdict(kept, module, text, m) in SURVIVED]
                sample = [m for m in survived if (module, m.change) not in EQUIVALENT]
            sample = [m for m in sample if again or not verdict(kept, module, text, m)]
            everyone = sorted({t for m in sample for t in judges(module, m.line, reached)})
            if everyone and judge(module, text, everyone[:NODES]) != "survived":
                print(f"  {module}: its tests fail without a change, see {OUT / 'mutant.log'}")
                continue
            for mutant in sample:
                found = judge(module, mutated(text, mutant), judges(module, mutant.line, reached))
                entry = mutant._asdict() | {"module": module, "source": digest(text)}
                with RESULTS.open("a") as file:
                    file.write(json.dumps(entry | {"verdict": found}) + "\n")
                print(f"  {found:9} {module}:{mutant.line} {mutant.change}", flush=True)


SURVIVED = ("survived", "unreached")


def drawn(text: str, each: int) -> list[Mutant]:
    every = mutants(text)
    return [m for m in random.Random(0).sample(every, len(every))[:each] if counts(text, m)]


def counts(text: str, mutant: Mutant) -> bool:
    """Whether a change is more than another decorator: a dataclass not frozen, a larger cache."""
    return not text.splitlines()[mutant.line - 1].lstrip().startswith("@")


def results() -> dict[tuple[str, str, int], str]:
    """Newest verdict by module, digest of its source, and number of the mutant."""
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    entries = map(json.loads, lines)
    return {(e["module"], e["source"], e["number"]): e["verdict"] for e in entries}


def verdict(kept: dict[tuple[str, str, int], str], module: str, text: str, mutant: Mutant) -> str:
    return kept.get((module, digest(text), mutant.number), "")


# --- table ----------------------------------------------------------------------------------------


def table(rooms: list[str]) -> str:
    """Scores by module and room; survivors; those that change nothing (equivalent) are named."""
    kept, rows, survivors, total = results(), [], [], [0, 0]
    for room in rooms:
        count = [0, 0]
        for module in sources(ROOMS[room][0]):
            text = (ROOT / module).read_text()
            found: dict[str, int] = defaultdict(int)
            for mutant in filter(lambda m: counts(text, m), mutants(text)):
                outcome = verdict(kept, module, text, mutant)
                reason = EQUIVALENT.get((module, mutant.change), "")
                if outcome in SURVIVED:
                    label = f"equivalent: {reason}" if reason else outcome
                    survivors.append(f"| {module}:{mutant.line} | `{mutant.change}` | {label} |")
                found["equivalent" if outcome in SURVIVED and reason else outcome] += 1
            dead = found["killed"] + found["timeout"]
            judged = dead + found["survived"] + found["unreached"]
            count = [count[0] + dead, count[1] + judged]
            if judged + found["equivalent"]:
                share = f"{dead / judged:.0%}" if judged else "-"
                rows.append(f"| {module} | {judged} | {dead} | {found['equivalent']} | {share} |")
        if count[1]:
            rows.append(f"| **{room}** | {count[1]} | {count[0]} | | {count[0] / count[1]:.1%} |")
        total = [total[0] + count[0], total[1] + count[1]]
    score = f"{total[0] / total[1]:.1%}" if total[1] else "-"
    head = "| module | judged | killed | equivalent | score |\n|---|---|---|---|---|"
    rest = "| place | change | |\n|---|---|---|"
    rows.append(f"| **all** | {total[1]} | {total[0]} | | {score} |")
    return "\n".join([head, *rows, "", rest, *survivors])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rooms", nargs="+", choices=ROOMS, default=[*ROOMS])
    parser.add_argument("--each", type=int, default=10, help="mutants of a module")
    parser.add_argument("--again", action="store_true", help="only those that survived so far")
    parser.add_argument("--table", action="store_true", help="print the table and end")
    options = parser.parse_args()
    os.chdir(ROOT)
    os.nice(19)
    (OUT / "site").mkdir(parents=True, exist_ok=True)
    REACH.mkdir(exist_ok=True)
    (OUT / "site" / "sitecustomize.py").write_text(SITE)
    if not options.table:
        campaign(options.rooms, options.each, options.again)
    print(table(options.rooms))


if __name__ == "__main__":
    main()
