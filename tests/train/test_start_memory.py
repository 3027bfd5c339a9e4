"""A resumed run holds its state once: a checkpoint is read tensor by tensor, and let go of."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch

from mimsuite import config
from mimsuite.train import checkpoint, run
from mimsuite.train.checkpoint import CheckpointState
from mimsuite.train.stored import Stored
from mimsuite.train.trainer import Trainer

WIDTH = 1024
MIB = 2**20

RESUME = """
import json, sys
from pathlib import Path
import torch
from mimsuite.train import checkpoint
from mimsuite.train.state import load_model, load_optimizer

def kib(name):
    return int(open("/proc/self/status").read().split(name + ":")[1].split()[0])

layers = [torch.nn.Linear(1024, 1024, bias=False) for _ in range(int(sys.argv[2]))]
model = torch.nn.Sequential(*layers)
held = [p for p in model.parameters()]
mib = 3 * sum(p.nbytes for p in held) / 2**20
names = [name for name, _ in model.named_parameters()]
optimizer = torch.optim.AdamW([{"params": held, "names": names}])
before = kib("VmRSS") / 2**10 - mib / 3
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
state = checkpoint.read(Path(sys.argv[1]), verified=True)
load_model(model, state.model)
load_optimizer(optimizer, state.optim)
peak = kib("VmHWM") / 2**10 - before
sums = [float(model[-1].weight[0, 0]), float(optimizer.state[held[-1]]["exp_avg"][0, 0])]
print(json.dumps({"state_mib": mib, "peak_mib": peak, "sums": sums}))
"""


def a_checkpoint(root: Path, layers: int) -> Path:
    weights = {f"{n}.weight": torch.full((WIDTH, WIDTH), n + 1.0) for n in range(layers)}
    optim = {f"{n}/{m}": t / 2 for n, t in weights.items() for m in ("exp_avg", "exp_avg_sq")}
    optim |= {f"{name}/step": torch.tensor(3.0) for name in weights}
    return checkpoint.save(root, CheckpointState(3, {}, weights, optim))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(
    "mib", [100, pytest.param(1000, marks=pytest.mark.slow)], ids=["100 MB", "1 GB"]
)
def test_a_resume_holds_little_more_than_its_state(tmp_path: Path, mib: int) -> None:
    layers = mib // 4
    path = a_checkpoint(tmp_path, layers)
    words = [sys.executable, "-c", RESUME, str(path), str(layers)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    figures = json.loads(done.stdout)
    print(figures)
    assert figures["sums"] == [layers, layers / 2]
    slack = 40 if mib == 100 else 0  # pages of libraries that are first used here
    assert figures["peak_mib"] < 1.2 * figures["state_mib"] + slack


def test_nothing_of_the_checkpoint_is_held_while_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = ["data.limit=32", "train.global_batch=8", "data.workers=0", "train.device=cpu"]
    recipe = config.load("image/mae-tiny-fashion", keys, smoke=True)
    run.train(recipe, tmp_path / "run", quiet=True)
    (newest, *_) = checkpoint.steps(tmp_path / "run" / "checkpoints")
    held: list[weakref.ref[CheckpointState]] = []
    plain_read, seen = checkpoint.read, list[bool]()

    def read(path: Path, *, verified: bool = False) -> CheckpointState:
        state = plain_read(path, verified=verified)
        held.append(weakref.ref(state))
        return state

    def fit(trainer: Trainer, *args: object, **kwargs: object) -> None:
        gc.collect()
        seen.extend(ref() is not None for ref in held)

    monkeypatch.setattr(checkpoint, "read", read)
    monkeypatch.setattr(Trainer, "fit", fit)
    run.train(recipe, tmp_path / "run", resume=str(newest), quiet=True)
    assert seen == [False]


def test_rows_of_a_tensor_in_several_files(tmp_path: Path) -> None:
    whole = torch.arange(30.0).reshape(10, 3)
    from safetensors.torch import save_file

    save_file({"m/w": whole[:4].clone()}, tmp_path / "a")
    save_file({"m/w": whole[4:5].clone()}, tmp_path / "b")
    save_file({"m/w": whole[5:].clone(), "m/one": torch.tensor(2.0)}, tmp_path / "c")
    stored = Stored(tmp_path, "m/", {"w": ["a", "b", "c"], "one": ["c"]})
    entry = stored.entry("w")
    assert entry.shape == whole.shape
    assert torch.equal(stored["w"], whole)
    for start in range(11):
        for stop in range(12):
            assert torch.equal(entry[start:stop], whole[start:stop]), (start, stop)
    assert stored.entry("one").shape == ()
    assert stored["one"] == 2.0


def test_the_generators_of_other_ranks_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranks = [{"torch": torch.full((4,), rank)} for rank in range(3)]
    path = checkpoint.save(tmp_path, CheckpointState(1, {}, {"w": torch.zeros(1)}, ranks=ranks))
    opened: list[str] = []
    from mimsuite.train import stored

    plain = stored.safe_open
    monkeypatch.setattr(
        stored, "safe_open", lambda file, kind: opened.append(file.name) or plain(file, kind)
    )
    state = checkpoint.read(path, verified=True)
    assert len(state.ranks) == 3
    assert int(state.ranks[1]["torch"][0]) == 1
    assert {name for name in opened if name.startswith("rank-")} == {"rank-00001.safetensors"}
