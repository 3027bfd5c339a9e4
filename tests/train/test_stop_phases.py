"""A stop signal at every phase of a run: saved and exit 75, or nothing begun yet.

In all cases the same command with ``--resume auto`` ends as if nobody had disturbed it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mimsuite.train import checkpoint

DRIVER = Path(__file__).with_name("signal_at.py")
METHOD = '''
"""MAE that says where it is."""
import sys
from typing import Literal

from mimsuite.config.keys.shared import MethodSection
from mimsuite.methods.mae import MAE, MAERecipe


class TellingSection(MethodSection):
    name: Literal["telling"]


class TellingRecipe(MAERecipe):
    method: TellingSection


class Telling(MAE):
    Recipe = TellingRecipe

    def __init__(self, recipe):
        super().__init__(recipe)
        sys.audit("phase", "init")

    def prepare(self, batch, noise, *more):
        sys.audit("phase", f"prepare {noise.step}")
        return super().prepare(batch, noise, *more)

    def forward(self, batch, masks, ctx):
        output = super().forward(batch, masks, ctx)
        step = ctx.noise.step
        sys.audit("phase", f"forward {step}")
        if output.loss.requires_grad:
            output.prediction.register_hook(lambda _: sys.audit("phase", f"backward {step}"))
        return output

    def panels(self, batch, masks, ctx):
        sys.audit("phase", "picture")
        return super().panels(batch, masks, ctx)
'''
RECIPE = """
base: image/mae-tiny-fashion
method: {name: telling}
model:
  encoder: {width: 16, depth: 1, heads: 2, drop_path: 0.2}
  decoder: {width: 16, depth: 1, heads: 2}
data: {workers: 1, source: %s}
train: {global_batch: 8, ema: 0.9, device: cpu}
schedule: {epochs: 3, warmup_epochs: 0}
log: {every_steps: 1, pictures_every_epochs: 1}
checkpoint: {every_steps: 4, every_minutes: null, keep: 2}
"""
TRAIN, TEST = 32, 16
LOOKED = 32  # events of the look at 16 samples that says what is dropped of each
TUNING_LOOKED = 16  # the same of a tuning, at 8 samples of each split
STEPS = 3 * TRAIN // 8

Start = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled photos of two classes, a method and its recipe."""
    folder = tmp_path_factory.mktemp("phases")
    rng = np.random.default_rng(0)
    for split, count in (("train", TRAIN), ("test", TEST)):
        for number in range(count):
            path = folder / "photos" / split / "ab"[number % 2] / f"{number:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 100, (28, 28)) + 100 * (number % 2)
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    (folder / "telling.py").write_text(METHOD)
    (folder / "telling.yaml").write_text(RECIPE % (folder / "photos"))
    return folder


@pytest.fixture(scope="module")
def start(home: Path) -> Iterator[Start]:
    """Start a command, in a fork of one process that has imported everything."""
    driver = subprocess.Popen(
        [sys.executable, str(DRIVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert driver.stdin is not None
    assert driver.stdout is not None
    log = home / "said.log"

    def begin(*words: object, moment: dict | None = None) -> tuple[int, str]:
        job = {"words": list(map(str, words)), "moment": moment, "log": str(log)}
        driver.stdin.write(json.dumps(job) + "\n")
        driver.stdin.flush()
        return int(driver.stdout.readline()), log.read_text()

    yield begin
    driver.stdin.close()
    driver.wait(timeout=30)


@pytest.fixture(scope="module")
def process(home: Path) -> Start:
    """Start a command as a process of its own."""
    (home / "site").mkdir()
    (home / "site" / "sitecustomize.py").write_text(DRIVER.read_text())

    def begin(*words: object, moment: dict | None = None) -> tuple[int, str]:
        command = [sys.executable, "-m", "mimsuite", *map(str, words)]
        own = {"PYTHONPATH": str(home / "site"), "SIGNAL_AT": json.dumps(moment)}
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, **own}, timeout=120
        )
        return done.returncode, done.stderr

    return begin


@pytest.fixture(scope="module")
def undisturbed(home: Path, start: Start) -> Path:
    code, said = start(*pretrain(home, home / "undisturbed"))
    assert code == 0, said
    assert len(losses(home / "undisturbed")) == STEPS
    return home / "undisturbed"


def pretrain(home: Path, out: Path) -> list[object]:
    words = ["pretrain", home / "telling.yaml", "--plugin", home / "telling.py"]
    return [*words, "--out", out, "--resume", "auto"]


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def losses(run: Path) -> list[tuple]:
    return [(row["step"], row["loss"], row["grad_norm"]) for row in lines(run / "metrics.jsonl")]


def final(run: Path) -> dict[str, bytes]:
    newest = max((run / "checkpoints").glob("step-*"))
    return {file.name: file.read_bytes() for file in sorted(newest.glob("*.safetensors"))}


def require_equal(run: Path, wanted: Path) -> None:
    assert (run / "DONE").exists()
    assert losses(run) == losses(wanted)
    ours, theirs = final(run), final(wanted)
    assert {name for name in ours | theirs if ours.get(name) != theirs.get(name)} == set()
    hidden = [path for path in run.rglob("*") if path.name.startswith((".tmp", ".del"))]
    assert hidden == []


def resumed_at(run: Path) -> list[int]:
    return [row["step"] for row in lines(run / "events.jsonl") if row["event"] == "resume"]


# Name, moment, and the steps that are saved then.
PHASES = [
    ("init", {"event": "phase", "matches": "init"}, 1),
    ("run-directory", {"event": "open", "matches": r"run/\.env\.json"}, 1),
    ("first-picture", {"event": "phase", "matches": "picture"}, 1),
    # In the loader's worker, once training has used up what was read ahead. A file opened by its
    # name is two events, and there are 8 in a batch.
    (
        "data-wait",
        {"event": "open", "matches": "train/.*png$", "nth": LOOKED + 103, "pause": 2},
        7,
    ),
    ("prepare", {"event": "phase", "matches": "prepare 5$"}, 6),
    ("forward", {"event": "phase", "matches": "forward 5$"}, 6),
    ("backward", {"event": "phase", "matches": "backward 5$"}, 6),
    ("save", {"event": "open", "matches": r"\.tmp-step-00000004.*/optim"}, 5),
    ("rename", {"event": "os.rename", "matches": r"\.tmp-step-00000004"}, 5),
    ("picture", {"event": "phase", "matches": "picture", "nth": 2}, 5),
]
IDS = [name for name, *_ in PHASES]
SIGNALS = ["SIGTERM", "SIGUSR1"]
QUICK = [phase for phase in PHASES if phase[0] not in ("first-picture", "prepare", "rename")]


@pytest.mark.parametrize(("number", "phase"), enumerate(QUICK), ids=[name for name, *_ in QUICK])
def test_a_signal_while_training_saves_and_asks_to_go_on(
    number, phase, home, start, undisturbed, tmp_path
):
    _, moment, step = phase
    stopped_and_resumed(home, start, undisturbed, tmp_path, moment, SIGNALS[number % 2], step)


@pytest.mark.slow
@pytest.mark.parametrize("name", SIGNALS)
@pytest.mark.parametrize("phase", PHASES, ids=IDS)
def test_likewise_in_processes_of_their_own(phase, name, home, process, undisturbed, tmp_path):
    _, moment, step = phase
    stopped_and_resumed(home, process, undisturbed, tmp_path, moment, name, step)


def stopped_and_resumed(
    home: Path, start: Start, wanted: Path, folder: Path, moment: dict, name: str, step: int
) -> None:
    run = folder / "run"
    code, said = start(*pretrain(home, run), moment={**moment, "signals": [name]})
    assert code == 75, said
    assert "Traceback" not in said
    assert name in json.loads((run / "PREEMPTED").read_text())["reason"]
    found, rejected = checkpoint.newest(run)
    assert found is not None
    # Training goes on while a save is written, so the step at which it stops is not always one.
    writing = moment["matches"].startswith(r"\.tmp-step")
    stopped = checkpoint.step_of(found)
    assert (step <= stopped <= STEPS if writing else stopped == step, rejected) == (True, [])
    code, said = start(*pretrain(home, run))
    assert code == 0, said
    assert resumed_at(run) == [stopped]
    require_equal(run, wanted)


@pytest.mark.parametrize(
    ("number", "module", "code"),
    [
        (signal.SIGUSR1, "mimsuite.cli.main", -signal.SIGUSR1),  # before there is a handler
        (signal.SIGTERM, "torch", 75),
    ],
    ids=["python", "torch"],
)
def test_a_signal_while_importing(
    number, module, code, home, process, start, undisturbed, tmp_path
):
    run = tmp_path / "run"
    moment = {"event": "import", "matches": f"^{module}$", "signals": [number.name]}
    ended, said = process(*pretrain(home, run), moment=moment)
    assert ended == code, said
    if code == 75:
        assert checkpoint.newest(run)[0] == run / "checkpoints" / "step-00000001"
    else:
        assert not run.exists()
    assert start(*pretrain(home, run))[0] == 0
    require_equal(run, undisturbed)


def test_a_signal_after_the_last_step_lets_the_run_finish(home, start, undisturbed, tmp_path):
    moment = {"event": "phase", "matches": "picture", "nth": 4, "signals": ["SIGTERM"]}
    code, said = start(*pretrain(home, tmp_path / "run"), moment=moment)
    assert code == 0, said
    require_equal(tmp_path / "run", undisturbed)


@pytest.mark.parametrize(
    ("moment", "step"),
    [
        ({"event": "os.rename", "matches": r"\.tmp-step-00000008"}, 4),
        ({"event": "phase", "matches": "forward 5$", "stuck": True}, 4),
    ],
    ids=["save", "native-code"],
)
def test_a_second_signal_ends_the_process_at_once(moment, step, home, start, undisturbed, tmp_path):
    run = tmp_path / "run"
    moment = {**moment, "signals": ["SIGUSR1", "SIGTERM"]}
    code, said = start(*pretrain(home, run), moment=moment)
    # Of two signals at once, sent from a thread, either may come second.
    assert code in (128 + signal.SIGTERM, 128 + signal.SIGUSR1), said
    assert "still alive" not in said
    assert not [name for name in ("DONE", "PREEMPTED", "FAILED") if (run / name).exists()]
    found, rejected = checkpoint.newest(run)
    assert (found and found.name, rejected) == (f"step-{step:08d}", [])
    assert start(*pretrain(home, run))[0] == 0
    require_equal(run, undisturbed)


TUNING = """
base: image/mae-tiny-finetune
recipe: {task: %s}
model: {freeze: %s}
data: {per_class: null, workers: 1}
train: {global_batch: 8, device: cpu}
schedule: {epochs: 2, warmup_epochs: 0}
eval: {batch: 8}
log: {every_steps: 1}
checkpoint: {every_steps: 4, keep: 2}
"""
TUNING_PHASES = {
    "reading": {"event": "open", "matches": "train/.*png$", "nth": TUNING_LOOKED + 87, "pause": 2},
    "saving": {"event": "open", "matches": r"\.tmp-step-00000004.*/optim"},
    "scoring": {"event": "open", "matches": "test/.*png$", "nth": TUNING_LOOKED + 9},
}


@pytest.fixture(scope="module")
def tune(home: Path, start: Start, undisturbed: Path) -> Callable[..., tuple[int, str]]:
    (home / "finetune.yaml").write_text(TUNING % ("finetune", "false"))
    (home / "linear-probe.yaml").write_text(TUNING % ("linear-probe", "true"))

    def run(command: str, out: Path, moment: dict | None = None) -> tuple[int, str]:
        words = [command, undisturbed, "--plugin", home / "telling.py", "--resume", "auto"]
        words += ["--recipe", home / f"{command}.yaml", "--out", out]
        return start(*words, moment=moment)

    return run


@pytest.fixture(scope="module", params=["finetune", "linear-probe"])
def tuned(home, tune, undisturbed, request) -> tuple[str, Path, dict]:
    """A command, its undisturbed run and the result."""
    command, out = request.param, home / f"undisturbed-{request.param}"
    code, said = tune(command, out)
    assert code == 0, said
    return command, out / "pretrained", result(command, undisturbed)


def result(command: str, run: Path) -> dict:
    found = json.loads((run / f"{command.replace('-', '_')}.json").read_text())
    return {name: found[name] for name in ("accuracy", "right", "steps")}


@pytest.mark.parametrize("name", TUNING_PHASES)
def test_a_signal_while_tuning(name, tune, tuned, undisturbed, tmp_path):
    command, whole, wanted = tuned
    moment = {**TUNING_PHASES[name], "signals": ["SIGTERM"]}
    code, said = tune(command, tmp_path, moment)
    assert code == 75, said
    assert "Traceback" not in said
    run = tmp_path / "pretrained"
    steps = int(max(path.name for path in (run / "checkpoints").glob("step-*"))[-8:])
    # Training goes on while a save is written: the step at which it stops is not always the same,
    # and on a busy machine it may be the last.
    ended = name == "scoring" or (name == "saving" and steps == 8)
    assert (run / "DONE").exists() == ended
    first, last = {"reading": (6, 7), "saving": (5, 8), "scoring": (8, 8)}[name]
    assert first <= steps <= last
    code, said = tune(command, tmp_path)
    assert code == 0, said
    assert resumed_at(run) == [steps]
    require_equal(run, whole)
    assert result(command, undisturbed) == wanted
