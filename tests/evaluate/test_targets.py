"""Labels that are numbers, or several a sample: figures, probes, fine-tuning, files."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from mimsuite.batch import Batch
from mimsuite.checkpoints import open_model
from mimsuite.cli.main import main
from mimsuite.evaluate.probes import logistic, ridge
from mimsuite.evaluate.probes.knn import nearest_mean
from mimsuite.evaluate.scoring.target_metrics import multilabel_figures, regression_figures
from tests import needs

TUNED = ("target.label_smoothing=0", "schedule.epochs=12")


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures whose red is a number and whose bright halves are labels, as two lists."""
    folder = tmp_path_factory.mktemp("targets")
    rng = np.random.default_rng(0)
    numbers, labels = ["path,label,split"], ["path,label,split"]
    for n in range(60):
        value, halves = rng.random(), rng.random(2) < 0.5
        pixels = rng.integers(0, 20, size=(16, 16, 3))
        pixels[..., 0] += int(200 * value)
        pixels[:8, :, 1] += 200 * halves[0]
        pixels[8:, :, 2] += 200 * halves[1]
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{n}.png")
        split = "train" if n < 40 else "test"
        second = "" if n % 5 == 0 else f"{value * value:.4f}"
        numbers.append(f"{n}.png,{1000 + 50 * value:.3f};{second},{split}")
        names = ";".join(name for name, on in zip(("top", "low"), halves, strict=True) if on) or ";"
        labels.append(f"{n}.png,{names},{split}")
    (folder / "numbers.csv").write_text("\n".join(numbers))
    (folder / "labels.csv").write_text("\n".join(labels))
    return folder


def answer(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    capsys.readouterr()
    assert main([*(str(a) for a in arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def complaint(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    capsys.readouterr()
    code = main([str(a) for a in arguments])
    return code, capsys.readouterr().err


# --- figures, against scikit-learn and SciPy ---


def test_regression_figures() -> None:
    metrics, stats = needs.module("sklearn.metrics"), needs.module("scipy.stats")
    rng = np.random.default_rng(1)
    truth = rng.normal(size=(50, 3))
    guess = (truth + rng.normal(size=truth.shape)).round(1)  # with equal values
    found = regression_figures(guess, truth)
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(truth, guess))
    assert found["rmse"] == pytest.approx(metrics.root_mean_squared_error(truth, guess))
    assert found["r2"] == pytest.approx(metrics.r2_score(truth, guess))
    rho = [stats.spearmanr(guess[:, k], truth[:, k]).statistic for k in range(3)]
    assert found["spearman"] == pytest.approx(np.mean(rho))


def test_unknown_and_constant_numbers() -> None:
    truth = np.array([[1.0, np.nan], [2.0, 5.0], [4.0, 5.0]])
    guess = np.array([[1.0, 9.0], [1.0, 5.0], [1.0, 6.0]])
    found = regression_figures(guess, truth)
    assert found["mae"] == pytest.approx((4 / 3 + 1 / 2) / 2)
    assert found["spearman"] == 0.0
    assert found["r2"] == pytest.approx((1 - 10 / (14 / 3)) / 2)


def test_multilabel_figures() -> None:
    metrics = needs.module("sklearn.metrics")
    rng = np.random.default_rng(2)
    truth = (rng.random((60, 4)) < 0.3).astype(float)
    scores = (0.5 * truth + 0.6 * rng.random(truth.shape)).round(1)  # with equal scores
    found = multilabel_figures(scores, truth)
    assert found["map"] == pytest.approx(metrics.average_precision_score(truth, scores))
    for average in ("micro", "macro"):
        expected = metrics.f1_score(truth, scores >= 0.5, average=average)
        assert found[f"f1_{average}"] == pytest.approx(expected)
    truth[:, 1] = 0
    some = metrics.average_precision_score(truth[:, [0, 2, 3]], scores[:, [0, 2, 3]])
    assert multilabel_figures(scores, truth)["map"] == pytest.approx(some)


# --- what is fitted, against scikit-learn ---


def test_ridge() -> None:
    linear, scale = needs.module("sklearn.linear_model"), needs.module("sklearn.preprocessing")
    rows, targets = torch.randn(40, 6) * 3 + 1, torch.randn(40, 2)
    targets[:7, 1] = torch.nan
    scaled = scale.StandardScaler().fit_transform(rows.numpy())
    for alpha, fitted in zip((10.0, 0.1), ridge.fit_path(rows, targets, (10.0, 0.1)), strict=True):
        found = fitted.predict(rows).numpy()
        for column, kept in ((0, slice(None)), (1, slice(7, None))):
            theirs = linear.Ridge(alpha=alpha).fit(scaled[kept], targets[kept, column].numpy())
            np.testing.assert_allclose(found[:, column], theirs.predict(scaled), atol=1e-5)


def test_one_logistic_regression_a_label() -> None:
    linear, scale = needs.module("sklearn.linear_model"), needs.module("sklearn.preprocessing")
    rows = torch.randn(80, 5)
    targets = (rows[:, :3] + torch.randn(80, 3) > 0).float()
    scaled = scale.StandardScaler().fit_transform(rows.numpy())
    (fitted,) = logistic.fit_labels(rows, targets, (0.1,))
    for column in range(3):
        theirs = linear.LogisticRegression(C=0.1, tol=1e-8).fit(scaled, targets[:, column].numpy())
        np.testing.assert_allclose(
            fitted.logits(rows)[:, column], theirs.decision_function(scaled), atol=2e-3
        )


def test_mean_of_the_nearest() -> None:
    rows = torch.eye(4)
    targets = torch.tensor([[1.0], [3.0], [torch.nan], [8.0]])
    queries = torch.tensor([[1.0, 0.9, 0, 0], [0, 0, 1.0, 0]])
    assert nearest_mean(rows, targets, queries, 2)[0].item() == 2.0
    assert nearest_mean(rows, targets, queries, 1)[1].item() == 4.0  # the mean of all


# --- commands ---


def test_probes_of_numbers(run: Path, lists: Path, capsys) -> None:
    data = ("--data", lists / "numbers.csv", "data.targets=regression", "--baselines")
    linear = answer(capsys, "linear-probe", run, *data)
    assert linear["r2"]["pretrained"] > 0.8
    assert linear["r2"]["mean"] == pytest.approx(0, abs=0.2)
    assert linear["chosen"]["pretrained"]["alpha"] in ridge.PENALTIES
    assert set(linear["intervals"]) == {"random_init", "raw_input", "mean"}
    low, high = (linear["intervals"]["mean"]["r2"][key] for key in ("low", "high"))
    assert low < linear["r2"]["pretrained"] - linear["r2"]["mean"] < high
    assert [set(one) for one in linear["each"]["pretrained"]] == [
        {"mae", "rmse", "r2", "spearman"}
    ] * 2
    near = answer(capsys, "knn", run, *data)
    assert near["r2"]["pretrained"] > 0.3
    main(["knn", str(run), *map(str, data)])
    assert "mean of" in capsys.readouterr().err


def test_probe_of_several_labels(run: Path, lists: Path, capsys) -> None:
    data = ("--data", lists / "labels.csv", "data.targets=multilabel", "--baselines")
    found = answer(capsys, "linear-probe", run, *data)
    assert found["map"]["pretrained"] > 0.9 > found["map"]["prior"]
    assert [one["label"] for one in found["each"]["pretrained"]] == ["low", "top"]
    assert found["n_train"] == 40  # ; is known to have none


@pytest.mark.parametrize("loss", ["mse", "huber"])
def test_fine_tuning_on_numbers(run: Path, lists: Path, tmp_path: Path, capsys, loss: str) -> None:
    options = ("--data", lists / "numbers.csv", "data.targets=regression", f"target.loss={loss}")
    found = answer(capsys, "finetune", run, *options, *TUNED, "--out", tmp_path)
    assert found["r2"]["pretrained"] > 0.5
    assert found["mean"][0] == pytest.approx(1025, abs=10)
    tuned = tmp_path / "pretrained"
    scored = answer(capsys, "evaluate", tuned)
    assert scored["mae"] == found["mae"]["pretrained"]
    method = open_model(str(tuned)).method
    guess = method.logits(torch.zeros(1, 3, 16, 16))
    assert 900 < guess[0, 0].item() < 1150  # in the unit of the labels
    fault = complaint(capsys, "evaluate", tuned, "--data", lists / "labels.csv")
    assert fault[0] == 3
    assert "is no finite number" in fault[1]


def test_exports_are_in_the_unit_of_the_labels(
    run: Path, lists: Path, tmp_path: Path, capsys
) -> None:
    needs.module("timm")
    options = ("--data", lists / "numbers.csv", "data.targets=regression", *TUNED)
    answer(capsys, "finetune", run, *options, "schedule.epochs=1", "--out", tmp_path)
    tuned, out = str(tmp_path / "pretrained"), str(tmp_path / "t.safetensors")
    assert main(["export", tuned, "--format", "timm", "--out", out]) == 0  # compares the answers
    code, said = complaint(capsys, "export", tuned, "--format", "reference", "--out", out)
    assert code == 2
    assert "regression head" in said


def test_fine_tuning_on_several_labels(run: Path, lists: Path, tmp_path: Path, capsys) -> None:
    options = ("--data", lists / "labels.csv", "data.targets=multilabel", "target.mixup=0.1")
    found = answer(capsys, "finetune", run, *options, *TUNED, "--baselines", "--out", tmp_path)
    assert found["map"]["pretrained"] > 0.8
    assert set(found["intervals"]["from_scratch"]) == {"map", "f1_micro", "f1_macro"}
    (lists / "other.csv").write_text("path,label,split\n0.png,low;new,test\n1.png,top,test")
    scored = answer(capsys, "evaluate", tmp_path / "pretrained", "--data", lists / "other.csv")
    assert [one["label"] for one in scored["each"]] == ["low", "top"]


def test_the_published_probe(run: Path, lists: Path, tmp_path: Path, recipes: Path, capsys) -> None:
    options = ("--data", lists / "numbers.csv", "data.targets=regression", "--baselines")
    own = ("--recipe", recipes / "probe.yaml", "--out", tmp_path)
    found = answer(capsys, "linear-probe", run, *options, *own)
    assert set(found["r2"]) == {"pretrained", "random_init", "raw_input", "mean"}
    assert found["mae"]["mean"] > 0


def test_unknown_numbers_leave_the_loss_alone(run: Path, lists: Path, tmp_path, capsys) -> None:
    options = ("--data", lists / "numbers.csv", "data.targets=regression", *TUNED)
    answer(capsys, "finetune", run, *options, "schedule.epochs=1", "--out", tmp_path)
    learnt = open_model(str(tmp_path / "pretrained")).method.learnt
    batch = Batch.of_images(torch.zeros(2, 3, 16, 16), torch.tensor([[1.0, torch.nan], [2.0, 3.0]]))
    target = learnt.target(batch, True)
    outputs = torch.zeros(2, 2, requires_grad=True)
    loss, _, weight = learnt.loss(outputs, target, batch)
    loss.backward()
    known = target[~target.isnan()]
    assert weight == 3
    torch.testing.assert_close(loss.detach(), known.square().mean())
    assert outputs.grad is not None
    assert outputs.grad[0, 1] == 0


# --- refusals ---


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("linear-probe RUN --data NUMBERS", "data.targets=regression"),
        ("knn RUN --data LABELS", "multilabel"),
        ("finetune RUN --data NUMBERS", "data.targets=regression"),
        ("finetune RUN --data NUMBERS target.kind=regression", "set data.targets=regression"),
        ("finetune RUN --data NUMBERS data.targets=regression", "set target.label_smoothing=0"),
        (
            "finetune RUN --data NUMBERS data.targets=regression target.label_smoothing=0 "
            "target.mixup=0.8",
            "set target.mixup=0",
        ),
        (
            "finetune RUN --data LABELS data.targets=multilabel target.label_smoothing=0 "
            "target.loss=huber",
            "target.loss",
        ),
        ("finetune RUN --data NUMBERS data.targets=regression data.per_class=3", "data.per_class"),
        ("low-shot RUN --data NUMBERS data.targets=regression", "no classes"),
        ("knn RUN data.targets=regression", "lists, tables and shards"),
        ("features RUN --data NUMBERS --out x.txt", ".npy"),
    ],
)
def test_refusals(run: Path, lists: Path, capsys, command: str, words: str) -> None:
    named = {"RUN": run, "NUMBERS": lists / "numbers.csv", "LABELS": lists / "labels.csv"}
    code, said = complaint(capsys, *(named.get(word, word) for word in command.split()))
    assert code in (2, 3)
    assert words in said
    assert said.count("\n") <= 1 + said.count("warning")


# --- files of features ---


def test_feature_files_say_the_same(run: Path, lists: Path, tmp_path: Path, capsys) -> None:
    for ending in ("safetensors", "npy", "csv"):
        out = str(tmp_path / f"f.{ending}")
        options = ["--data", str(lists / "numbers.csv"), "data.targets=regression"]
        assert main(["features", str(run), *options, "--split", "test", "--out", out]) == 0
    tensors = load_file(tmp_path / "f.safetensors")
    array = np.load(tmp_path / "f.npy")
    np.testing.assert_array_equal(array, tensors["features"].numpy())
    with (tmp_path / "f.csv").open() as file:
        rows = list(csv.DictReader(file))
    table = [[row[f"f{column}"] for column in range(array.shape[1])] for row in rows]
    np.testing.assert_array_equal(np.array(table, dtype=np.float32), array)
    with (tmp_path / "f.keys.csv").open() as file:
        keys = list(csv.DictReader(file))
    assert [row["key"] for row in keys] == [row["key"] for row in rows]
    assert keys[0]["key"] == "40.png"
    assert keys[0]["label1"] == ""  # not known
    labels = np.array([[float(row["label0"])] for row in keys], dtype=np.float32)
    np.testing.assert_array_equal(labels, tensors["labels"].numpy()[:, :1])


def test_classes_in_a_feature_file_are_names(run: Path, tmp_path: Path) -> None:
    assert main(["features", str(run), "--out", str(tmp_path / "f.npy")]) == 0
    lines = (tmp_path / "f.keys.csv").read_text().splitlines()
    assert lines[:2] == ["key,label", "blue/0.png,blue"]
