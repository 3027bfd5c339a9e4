"""Label-free signals: their mathematics on known spectra, and that they leave training alone."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from mimsuite import config
from mimsuite.cli.main import main
from mimsuite.data import open_training_set
from mimsuite.methods import build
from mimsuite.train.feature_rank import VIEWS, lidar, measure, rankme
from tests import needs

TOOL = Path(__file__).parents[2] / "tools" / "signals.py"
DEVICE = torch.device("cpu")


def rows(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def with_spectrum(values: list[float], count: int = 40) -> torch.Tensor:
    left, _ = torch.linalg.qr(rows(count, len(values)).double())
    right, _ = torch.linalg.qr(rows(len(values), len(values), seed=1).double())
    return left @ torch.diag(torch.tensor(values).double()) @ right


@pytest.mark.parametrize("rank", [1, 3, 12])
def test_rankme_of_equal_singular_values_is_their_number(rank):
    table = with_spectrum([2.0] * rank + [0.0] * (12 - rank))
    assert rankme(table) == pytest.approx(rank, rel=1e-3)


def test_rankme_is_the_papers_formula():
    values = np.array([5.0, 1.0, 0.5, 0.1])
    p = values / values.sum() + 1e-7
    assert rankme(with_spectrum(values.tolist())) == pytest.approx(
        math.exp(-(p * np.log(p)).sum()), rel=1e-9
    )
    assert rankme(torch.zeros(5, 3)) == 0.0


def test_lidar_equals_the_definition():
    table = rows(30, 6, 5).double() + 3 * rows(30, 1, 5, seed=2).double()
    means = table.mean(1)
    inner = table - means[:, None]
    within = torch.einsum("nqd,nqe->de", inner, inner) / (30 * 6) + 1e-4 * torch.eye(5)
    outer = means - means.mean(0)
    between = outer.T @ outer / 30
    values = torch.linalg.eigvals(torch.linalg.solve(within, between)).real
    p = values / values.sum() + 1e-7
    assert lidar(table) == pytest.approx(float((-(p * p.log()).sum()).exp()), rel=1e-6)


def test_lidar_counts_directions_that_tell_samples_apart_and_rankme_all():
    told, noise = rows(200, 1, 3), rows(200, 8, 9, seed=2)
    table = torch.cat([5 * told.expand(-1, 8, -1) + 0.1 * noise[..., :3], noise[..., 3:]], dim=2)
    assert lidar(table) == pytest.approx(3, abs=0.3)
    assert rankme(table[:, 0]) > 4
    assert lidar(told.expand(-1, 8, -1)) is None  # the same in every view: nothing to compare


def tiny(**keys):
    return config.load("image/mae-tiny-fashion", [f"{k}={v}" for k, v in keys.items()], smoke=True)


def test_measuring_draws_nothing_and_changes_nothing():
    resolved = tiny()
    method = build(resolved.recipe).eval()
    source = open_training_set(resolved.recipe)
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = measure(method, source, resolved.recipe, 20, 64, DEVICE)
    assert set(first) == {"rankme", "lidar"}
    assert 1 <= first["lidar"] <= 19
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)
    assert all(torch.equal(before[name], tensor) for name, tensor in method.state_dict().items())
    assert all(parameter.grad is None for parameter in method.parameters())
    again = measure(method, source, resolved.recipe, 20, 7, DEVICE)  # in other batches
    assert again == pytest.approx(first, rel=1e-3)


@pytest.mark.parametrize(
    ("recipe", "kind"),
    [
        ("video/videomae2-tiny-motion", "video"),
        ("points/mae-tiny-furniture", ""),
        ("volume/nerf-mae-tiny-rooms", "grids"),
    ],
)
def test_every_modality_is_measured(recipe, kind, tmp_path):
    keys = []
    if kind:
        size = ["--size", "32"] if kind == "grids" else []
        assert main(["data", "synth", kind, str(tmp_path), "--count", "24", *size]) == 0
        keys = [f"data.source={tmp_path}"]
    resolved = config.load(recipe, keys, smoke=True)
    method = build(resolved.recipe).eval()
    source = open_training_set(resolved.recipe)
    found = measure(method, source, resolved.recipe, 4, 1 + VIEWS, DEVICE)
    assert found["rankme"] > 0
    assert found["lidar"] > 0


def pretrain(out: Path, *keys: str) -> None:
    common = ["data.limit=200", "train.global_batch=50", "schedule.epochs=3", "--device", "cpu"]
    words = ["pretrain", "image/mae-tiny-fashion", "--smoke", *common, "log.every_steps=2"]
    assert main([*words, *keys, "--out", str(out)]) == 0


def test_training_is_the_same_bits_with_and_without(tmp_path):
    on = ("log.signals_every_epochs=1", "log.signals_samples=12", "train.ema=0.9")
    pretrain(tmp_path / "with", *on, "model.encoder.drop_path=0.2")
    pretrain(tmp_path / "without", "train.ema=0.9", "model.encoder.drop_path=0.2")
    ours, theirs = (max((tmp_path / n / "checkpoints").glob("step-*")) for n in ("with", "without"))
    names = [file.name for file in theirs.glob("*.safetensors")]
    assert len(names) >= 3
    for name in names:
        assert (ours / name).read_bytes() == (theirs / name).read_bytes()
    table = [json.loads(line) for line in (tmp_path / "with" / "metrics.jsonl").open()]
    measured = [row["step"] for row in table if "rankme" in row]
    assert measured == [4, 8, 12]
    assert "RankMe (diagnostic)" in (tmp_path / "with" / "report.html").read_text()
    assert "RankMe" not in (tmp_path / "without" / "report.html").read_text()


@pytest.mark.parametrize(
    ("epochs", "lines", "total", "expected"),
    [
        (5.0, 20, 100, [60, 100]),  # 50 is measured at the next line, 100 at its own
        (0.3, 20, 30, [20, 30]),  # never more often than lines
        (1.0, 5, 27, [10, 20, 27]),
        (9.0, 5, 27, [27]),
    ],
)
def test_when_it_is_measured_depends_on_the_step_alone(epochs, lines, total, expected):
    from types import SimpleNamespace

    from mimsuite.train.signals import Signals
    from mimsuite.train.trainer import Trainer

    log = SimpleNamespace(signals_every_epochs=epochs, every_steps=lines)
    trainer = SimpleNamespace(
        recipe=SimpleNamespace(log=log), steps_per_epoch=10, total_steps=total
    )
    signals = Signals(trainer)
    steps = [step for step in range(1, total + 1) if step % lines == 0 or step == total]
    assert [
        step for step in steps if Trainer.due_since_last_line(trainer, step, signals.every)
    ] == expected


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mimsuite_signals", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_correlation_is_spearmans(tool):
    rng = np.random.default_rng(0)
    stats = needs.module("scipy.stats")
    for _ in range(5):
        x, y = rng.integers(0, 6, 12).astype(float), rng.normal(size=12)
        expected = stats.spearmanr(x, y)
        rho, p = tool.correlation(x, y)
        assert rho == pytest.approx(expected.statistic)
        assert p == pytest.approx(expected.pvalue, abs=0.03)
    assert tool.correlation(np.ones(5), np.arange(5.0)) == (0.0, 1.0)


def test_the_tool_reads_a_folder_of_runs(tool, tmp_path, monkeypatch, capsys):
    for number in range(7):
        run = tmp_path / f"run-{number}"
        run.mkdir()
        (run / "config.yaml").write_text("data: {source: photos}\n")
        row = {"step": 5, "loss": 0.5, "rankme": 3.0 + number, "lidar": 9.0 - number}
        (run / "metrics.jsonl").write_text(json.dumps(row) + "\n")
        figure = {"balanced_accuracy": {"pretrained": 0.5 + number / 100}}
        (run / "linear_probe.json").write_text(json.dumps(figure))
    monkeypatch.setattr("sys.argv", ["signals.py", str(tmp_path)])
    assert tool.main() == 0
    out = capsys.readouterr().out
    assert "rankme  on photos: rho +1.00 over 7 runs" in out
    assert "lidar   on photos: rho -1.00 over 7 runs" in out
    assert out.count("diagnostic only") == 2  # the loss is the same everywhere
    monkeypatch.setattr("sys.argv", ["signals.py", str(tmp_path), "--probe", "knn"])
    assert tool.main() == 2
