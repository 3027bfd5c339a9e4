"""`mimsuite runs show` and `runs compare`, on run directories written by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from PIL import Image

from mimsuite.cli.main import main
from mimsuite.report.braille import plot

CONFIG = """# image/mae-tiny-fashion, resolved
recipe: {{title: A tiny one, task: pretrain}}
method: {{name: mae}}
data: {{source: "embedded:fashion-mnist"}}
optim: {{lr: {lr}}}
schedule: {{epochs: 2}}
"""


@pytest.fixture
def runs(tmp_path) -> list[Path]:
    """Two runs: a finished one with a probe, and one that was killed, with a gap in its losses."""
    made = []
    for name, lr, rate in (("first", 0.001, 0.2), ("second", 0.004, 0.4)):
        run = tmp_path / "runs" / name
        (run / "checkpoints").mkdir(parents=True)
        (run / "config.yaml").write_text(CONFIG.format(lr=lr))
        (run / "config.diff.yaml").write_text(f"optim: {{lr: {lr}}}\n")
        rows = [
            {"step": n, "loss": "NaN" if name == "second" and n == 9 else math.exp(-rate * n),
             "lr": lr, "grad_norm": 1.0}
            for n in range(1, 21)
        ]  # fmt: skip
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (run / "events.jsonl").write_text('{"event": "save", "step": 20}\n')
        for step, loss in ((10, 0.5), (15, 0.2), (20, 0.3)):
            folder = run / "checkpoints" / f"step-{step:08d}"
            folder.mkdir()
            (folder / "state.json").write_text(json.dumps({"mean_loss": loss}))
        made.append(run)
    (made[0] / "DONE").write_text('{"step": 20, "time": "2026-01-01T00:00:00+00:00"}')
    (made[0] / "knn.json").write_text('{"accuracy": {"pretrained": 0.625}}')
    return made


def said(capfd, *words: object, code: int = 0) -> tuple[str, str]:
    capfd.readouterr()
    assert main(["runs", *map(str, words)]) == code
    return capfd.readouterr()


def test_show_tells_the_end_the_best_checkpoint_the_probes_and_the_next_step(runs, capfd):
    _, text = said(capfd, "show", runs[0])
    for part in (
        f"{runs[0]}: DONE", "optim.lr=0.001", "step-00000015", "nearest neighbours 62.5 %",
        "loss of first", "mimsuite linear-probe",
    ):  # fmt: skip
        assert part in text
    out, _ = said(capfd, "show", runs[1], "--json")
    found = json.loads(out)
    assert found["status"] == "not finished"
    assert found["lowest_step"] == 20
    assert found["loss"] == pytest.approx(math.exp(-8))
    assert found["events"] == {"save": 1}


def test_compare_lists_what_differs_and_draws_the_curves(runs, capfd, tmp_path):
    picture = tmp_path / "curves.png"
    out, text = said(capfd, "compare", *runs, "--out", picture)
    table = {line.split("  ")[0]: line for line in out.splitlines()}
    assert table["optim.lr"].split() == ["optim.lr", "0.001", "0.004"]
    assert "62.5 %" in table["nearest neighbours"]
    assert "method.name" not in table
    assert "loss of first" in text
    assert "loss of second" in text
    with Image.open(picture) as image:
        assert image.width > 1000
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 20)}
    assert {(37, 99, 235), (217, 119, 6)} <= colours
    out, _ = said(capfd, "compare", *runs, "--json")
    found = json.loads(out)
    assert found["differ"] == {"optim.lr": [0.001, 0.004]}
    assert [run["name"] for run in found["runs"]] == ["first", "second"]


def test_a_run_that_logged_nothing_can_be_compared(runs, capfd, tmp_path):
    (runs[1] / "metrics.jsonl").unlink()
    out, _ = said(capfd, "compare", *runs, "--out", tmp_path / "c.png")
    assert "not finished" in out
    (runs[0] / "metrics.jsonl").unlink()
    said(capfd, "compare", *runs)
    _, text = said(capfd, "compare", *runs, "--out", tmp_path / "d.png", code=2)
    assert "nothing was logged" in text


@pytest.mark.parametrize(
    ("words", "culprit"),
    [
        (["compare", "RUN"], "two runs"),
        (["compare", "RUN", "RUN", "--out", "x.jpg"], ".png"),
        (["compare", "RUN", "nowhere"], "nowhere is no run directory"),
        (["show", "nowhere"], "nowhere is no run directory"),
    ],
)
def test_a_wrong_command(words, culprit, runs, capfd):
    given = [runs[0] if word == "RUN" else word for word in words]
    out, text = said(capfd, *given, code=2)
    assert out == ""
    assert culprit in text
    assert len(text.splitlines()) == 1


def test_a_curve_in_braille():
    rising = plot([(0, 0.0), (1, 1.0)], 2, 1, (0, 1), (0.0, 1.0))
    assert rising == ["⡠⠊"]
    level = plot([(0, 0.0), (0.5, math.nan), (1, 0.0)], 2, 1, (0, 1), (0.0, 1.0))
    assert level == ["⡀⢀"]
    assert plot([(0, 5.0)], 2, 1, (0, 1), (0.0, 1.0)) == ["⠀⠀"]
