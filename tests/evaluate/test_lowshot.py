"""Few labels: which samples, what is measured of them, and the command."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression

from mimsuite import config, evaluate
from mimsuite.cli.main import main
from mimsuite.data import open_training_set
from mimsuite.data.sources.few import amount_of, draw, text_of
from mimsuite.errors import DataError, UserError
from mimsuite.evaluate import ProbeData, low_shot
from mimsuite.evaluate.probes import logistic
from mimsuite.evaluate.probes.lowshot import draw_numbers, one_table, sizes
from mimsuite.evaluate.tuning.lowshot_tuning import few_labels

ROOT = Path(__file__).parents[2]


def blobs(samples: int = 120, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.arange(samples) % 3
    generator = torch.Generator().manual_seed(seed)
    return torch.eye(6)[labels] * 4 + torch.randn(samples, 6, generator=generator), labels


def probe_data_of(train: torch.Tensor, labels: torch.Tensor) -> ProbeData:
    """Beside blobs, a variant of noise."""
    test, answers = blobs(90, seed=1)
    noise = torch.randn(210, 6, generator=torch.Generator().manual_seed(2))
    return ProbeData(
        {"pretrained": {"x": train}, "random_init": {"x": noise[90:][: len(train)]}},
        {"pretrained": {"x": test}, "random_init": {"x": noise[:90]}},
        labels,
        answers,
        3,
        (torch.zeros(0), torch.zeros(0)),
        seed=0,
    )


def test_more_labels_help_and_every_draw_is_told() -> None:
    result = low_shot(probe_data_of(*blobs()), (1, 20, 0.1))
    for kind in ("linear", "knn"):
        one, twenty, tenth = (result[kind][text] for text in ("1", "20", "10%"))
        for figures in (one, twenty, tenth):
            spread = figures["balanced_accuracy"]["pretrained"]
            assert len(spread["values"]) == 5
            assert spread["min"] <= spread["mean"] <= spread["max"]
        means = [f["accuracy"]["pretrained"]["mean"] for f in (one, tenth, twenty)]
        assert means == sorted(means)
        gain = twenty["intervals"]["random_init"]["accuracy"]
        theirs = twenty["accuracy"]["random_init"]["mean"]
        assert gain["difference"] == pytest.approx(means[-1] - theirs)
        assert gain["low"] > 0.3
    assert result["amounts"]["10%"] == {"samples": 12, "per_class": [4, 4]}
    assert json.dumps(result)


def test_figures_are_those_of_scikit_learn() -> None:
    data = probe_data_of(*blobs())
    result = low_shot(data, (5,), seed=2)
    assert result["draws"] == [10, 11, 12, 13, 14] == list(draw_numbers(2, 5))
    rows = draw(data.train_labels.numpy(), 5, 11)
    x, y = data.train["pretrained"]["x"][rows], data.train_labels[rows]
    mean, std = x.mean(0), x.std(0, correction=0)
    reference = LogisticRegression(C=1.0).fit((x - mean) / std, y)
    test = (data.test["pretrained"]["x"] - mean) / std
    expected = reference.score(test, data.test_labels)
    assert result["linear"]["5"]["accuracy"]["pretrained"]["values"][1] == pytest.approx(expected)


def test_regression_ends_at_the_minimum_for_every_penalty() -> None:
    x, y = blobs(60)
    for strength, found in zip((0.01, 10.0), logistic.fit_path(x, y, 3, (0.01, 10.0)), strict=True):
        rows = (x - x.mean(0)) / x.std(0, correction=0)
        reference = LogisticRegression(C=strength, tol=1e-8, max_iter=1000).fit(rows, y)
        expected = torch.from_numpy(reference.predict_proba(rows)).float()
        torch.testing.assert_close(found.logits(x).softmax(1), expected, atol=2e-3, rtol=0)


def test_test_labels_choose_nothing() -> None:
    data = probe_data_of(*blobs())
    before = low_shot(data, (2,))["linear"]["2"]["accuracy"]["pretrained"]["values"]
    data.test_labels.copy_((data.test_labels + 1) % 3)
    after = low_shot(data, (2,))["linear"]["2"]["accuracy"]["pretrained"]["values"]
    assert all(a + b <= 1 for a, b in zip(before, after, strict=True))


def test_amounts_that_a_class_does_not_have_are_left_out_and_noted() -> None:
    x, y = blobs(12)
    result = low_shot(probe_data_of(x, y), (1, 4, 5))
    assert list(result["linear"]) == ["1", "4"]
    assert result["notes"] == ["5 labels per class left out: a class has 4 samples"]
    with pytest.raises(DataError, match="a class has 4 samples: too few"):
        low_shot(probe_data_of(x, y), (5, 20))


def test_amounts_are_read_as_they_are_written() -> None:
    assert [amount_of(text) for text in ("5", "1%", "0.5%")] == [5, 0.01, 0.005]
    assert [text_of(amount) for amount in (5, 0.01, 0.005)] == ["5", "1%", "0.5%"]
    for text in ("0", "-1", "x", "100%", "0%", "", "1.5"):
        with pytest.raises(UserError, match="give labels a class as 5"):
            amount_of(text)


def test_a_share_is_of_each_class_and_at_least_one_sample() -> None:
    labels = np.repeat([0, 1, -1], [200, 3, 50])
    drawn = draw(labels, 0.01, 0)
    assert np.bincount(labels[drawn]).tolist() == [2, 1]
    assert set(drawn) <= set(draw(labels, 0.1, 0))
    assert sizes(torch.from_numpy(labels[labels >= 0]), (0.1,)) == {
        "10%": {"samples": 21, "per_class": [1, 20]}
    }


def test_shipped_lists_are_the_draws_of_seed_0() -> None:
    spec = importlib.util.spec_from_file_location("lists", ROOT / "tools" / "low_shot_lists.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    made = tool.made()
    assert json.loads(tool.FILE.read_text()) == made
    assert [len(keys) for keys in made["embedded:fashion-mnist"]["20"]] == [200] * 5


def test_fine_tuning_sees_the_shipped_lists() -> None:
    shipped = json.loads((ROOT / "mimsuite/data/embedded/low_shot.json").read_text())
    recipe = config.load("image/mae-tiny-finetune", ["data.source=embedded:fashion-mnist"])
    for text, batch, steps in (("1", 10, 100), ("20", 50, 120), ("10%", 50, 300)):
        one = few_labels(recipe, amount_of(text), 3).recipe
        source = open_training_set(one)
        keys = [source.key(*source.locate(position)) for position in range(len(source))]
        assert keys == shipped["embedded:fashion-mnist"][text][3]
        assert one.train.global_batch == batch
        assert round(one.schedule.epochs * (len(source) // batch)) == steps
        assert one.schedule.warmup_epochs / one.schedule.epochs == pytest.approx(0.1)


def test_one_layer_and_pooling_unless_the_user_names_them() -> None:
    resolved = config.load("image/mae-tiny-fashion")
    assert one_table(resolved, 4).recipe.eval.layers == (4,)
    assert one_table(resolved, 4).recipe.eval.pool == "mean"
    named = config.with_overrides(resolved, {"eval.layers": [2], "eval.pool": "cls"})
    assert one_table(named, 4) is named


def test_command_writes_figures_lists_and_a_picture(run: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    words = ["low-shot", run, "--labels", "1,5,50%,20", "--baselines", "--json", "--out", out]
    assert main([str(word) for word in words]) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert result == json.loads((out / "low_shot.json").read_text())
    for word in ("linear probe", "nearest neighbours", "raw input", "over random", "C = 1"):
        assert word in " ".join(printed.err.split())
    assert "20 labels per class left out: a class has 12 samples" in printed.err
    variants = ["pretrained", "random_init", "raw_input"]
    assert list(result["linear"]["50%"]["balanced_accuracy"]) == variants
    assert result["linear"]["5"]["accuracy"]["raw_input"]["mean"] > 0.9
    assert result["features"]["pretrained"] == "mean@2"
    lists = json.loads((out / "lists.json").read_text())
    assert [len(lists[text][0]) for text in ("1", "5", "50%")] == [3, 15, 18]
    assert all("/" in key for key in lists["1"][4])
    assert Image.open(out / "curve.png").width > 1000
    assert main(["low-shot", str(run), "--labels", "1,all"]) == 2
    assert "'all': give labels a class as 5" in capsys.readouterr().err


def test_fine_tuning_joins_the_curve(run: Path, tmp_path: Path) -> None:
    composed = evaluate.compose(config.load(run / "config.yaml"), "", "finetune")
    quick = config.with_overrides(composed, {"log.every_steps": 50})
    found = evaluate.low_shot_finetune(
        run, quick, (0.25,), tmp_path / "runs", seed=1, draws=1, baselines=True, quiet=True
    )
    assert list(found) == ["25%", "protocol"]
    figures = found["25%"]["balanced_accuracy"]
    assert set(figures) == {"pretrained", "from_scratch"}
    assert len(figures["pretrained"]["values"]) == 1
    assert (tmp_path / "runs/25-percent/draw-1/from_scratch/DONE").is_file()
