"""The report card: its verdict on known gains, and that it stands on damaged files."""

from __future__ import annotations

import json

import pytest

from mimsuite.cli.main import main
from mimsuite.errors import UserError
from mimsuite.report.card import card, write_card
from mimsuite.report.compare import paired, read_runs
from mimsuite.report.gains import read_gains, verdict


def interval(low, high):
    return {"balanced_accuracy": {"difference": (low + high) / 2, "low": low, "high": high}}


def probe(path, name, **baselines):
    intervals = {key: interval(*bounds) for key, bounds in baselines.items()}
    (path / f"{name}.json").write_text(json.dumps({"intervals": intervals}))


CASES = [
    ({"random_init": (0.02, 0.05), "raw_input": (0.01, 0.04)}, "helps"),
    ({"random_init": (0.02, 0.05), "raw_input": (-0.01, 0.04)}, "not yet"),
    ({"random_init": (0.02, 0.05), "raw_input": (-0.05, -0.01)}, "raw input wins"),
    ({"random_init": (-0.05, -0.01), "majority": (0.2, 0.3)}, "not yet"),
]


@pytest.mark.parametrize(("gains", "word"), CASES)
def test_the_verdict_is_of_the_interval(tmp_path, gains, word):
    probe(tmp_path, "linear_probe", **gains)
    found = verdict(read_gains(tmp_path))
    assert found is not None
    assert found.word == word
    assert found.gain.baseline != "majority"


def test_equal_compute_decides_where_it_was_measured(tmp_path):
    probe(tmp_path, "linear_probe", random_init=(0.02, 0.05), raw_input=(0.01, 0.04))
    probe(tmp_path, "finetune", from_scratch=(0.1, 0.2), from_scratch_equal_compute=(-0.1, -0.01))
    found = verdict(read_gains(tmp_path))
    assert found is not None
    assert found.word == "not yet"
    assert found.gain.text == "-5.5 points [-10.0, -1.0]"
    assert verdict([]) is None


def test_low_shot_is_read_where_it_is(tmp_path):
    (tmp_path / "low_shot").mkdir()
    one = {"balanced_accuracy": {"pretrained": {"mean": 0.5, "min": 0.4, "max": 0.6}}}
    result = {"linear": {"5": one | {"intervals": {"random_init": interval(0.1, 0.2)}}}}
    (tmp_path / "low_shot" / "low_shot.json").write_text(json.dumps(result))
    (found,) = read_gains(tmp_path)
    assert found.title == "low-shot, linear, 5 a class: over random encoder"
    assert "50.0 % (40.0 to 60.0)" in card(tmp_path)


def test_the_page(run, tmp_path, capsys):
    assert "None: nothing was measured" in card(run.path)
    run.metrics(5, {"loss": 0.5, "lr": 1e-3, "grad_norm": 1.0, "rankme": 7.5, "lidar": 3.0})
    probe(run.path, "linear_probe", random_init=(0.02, 0.05), raw_input=(0.01, 0.04))
    out = tmp_path / "card.html"
    assert main(["card", str(run.path), "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"]["word"] == "helps"
    page = out.read_text()
    for text in ("helps", "+2.5 points [+1.0, +4.0]", "RankMe (diagnostic)", "equal total compute"):
        assert text in page
    assert 'src="http' not in page
    for name in ("linear_probe.json", "metrics.jsonl", "config.yaml"):
        (run.path / name).write_bytes(b"\xff[{")
    assert "None: nothing was measured" in card(run.path)


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(UserError, match="no run directory"):
        write_card(tmp_path)


def test_runs_are_compared_on_the_same_samples(tmp_path):
    marks = {"a": "0101010101" * 8, "b": "1111110111" * 8, "c": "1111110111" * 8}
    for name, right in marks.items():
        run = tmp_path / name
        run.mkdir()
        (run / "config.yaml").write_text("train: {seed: 0}\n")
        labels = [0, 1] * 40 if name != "c" else [1, 0] * 40
        result = {"right": {"pretrained": right}, "labels": labels}
        (run / "knn.json").write_text(json.dumps(result))
    (found,) = paired(read_runs([tmp_path / name for name in marks]))
    assert (found["run"], found["against"]) == ("b", "a")
    assert found["difference"] == pytest.approx(0.4)
    assert found["low"] > 0
    assert main(["runs", "compare", *(str(tmp_path / name) for name in marks)]) == 0
