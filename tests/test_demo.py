"""`mimsuite demo`: what it removes, how it runs commands, its estimate, its table."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from mimsuite.demo import pace
from mimsuite.demo.commands import answer_of, run_command
from mimsuite.demo.sequence import MARKER, RECIPE, start_over, write
from mimsuite.demo.table import SECTIONS, ResultTable, rows_of
from mimsuite.errors import UserError


def result(name: str, ours: str, theirs: str) -> dict:
    right = {"pretrained": ours, **dict.fromkeys(SECTIONS[name][1], theirs)}
    figures = {name: text.count("1") / len(text) for name, text in right.items()}
    return {"balanced_accuracy": {**figures, "not_asked_for": None}, "right": right}


def test_only_an_earlier_demo_is_removed(tmp_path, capsys):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "config.yaml").write_text("somebody's run")
    with pytest.raises(UserError, match="was not made by this demo"):
        start_over(mine)
    assert (mine / "config.yaml").exists()

    write(mine / MARKER, {"made_by": "mimsuite demo", "recipe": RECIPE})
    link = tmp_path / "link"
    link.symlink_to(mine)
    with pytest.raises(UserError, match="was not made by this demo"):
        start_over(link)

    start_over(mine)
    assert not mine.exists()
    assert "removing the earlier demo" in capsys.readouterr().err
    start_over(mine)  # nothing there: nothing to do


@pytest.mark.parametrize("content", ["", "[]", '"text"', '{"recipe": "another"}'])
def test_a_strange_marker_is_no_marker(tmp_path, content):
    (tmp_path / MARKER).write_text(content)
    with pytest.raises(UserError):
        start_over(tmp_path)
    assert (tmp_path / MARKER).read_text() == content


def test_a_failing_command_is_shown_and_ends_the_demo(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        run_command("recipes", "show", "no/such recipe")
    assert stopped.value.code == 2
    assert "$ mimsuite recipes show 'no/such recipe'" in capsys.readouterr().err
    with pytest.raises(SystemExit):  # below a live table its last words come from the log
        answer_of("recipes", "show", "no/such recipe", log=tmp_path / "log")
    assert "error: no recipe" in capsys.readouterr().err.replace("unknown recipe", "no recipe")


def test_the_table_has_gains_with_paired_intervals(capsys):
    with ResultTable() as table:
        for name in SECTIONS:
            table.begin(name)
            table.add(name, result(name, "1111111101" * 20, "1111010101" * 20))
    lines = capsys.readouterr().out.splitlines()
    raw = next(line for line in lines if "raw pixels" in line)
    assert raw.split() == ["raw", "pixels", "70.0", "+20.0", "[+14.5,", "+25.5]"]
    assert len(lines) == 2 + sum(len(baselines) for _, baselines in SECTIONS.values())


def test_the_table_fills_on_a_terminal():
    program = """
import time
from tests.test_demo import result
from mimsuite.demo.table import SECTIONS, ResultTable
with ResultTable() as table:
    for name in SECTIONS:
        table.begin(name)
        time.sleep(1.2 if name == "knn" else 0)
        table.add(name, result(name, "1111111101" * 20, "1111010101" * 20))
"""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", program], cwd=Path(__file__).parents[1], stdout=theirs,
        env={**os.environ, "COLUMNS": "100", "TERM": "xterm"},
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    try:
        while data := os.read(ours, 4096):
            shown += data
    except OSError:  # the terminal's other end is closed
        pass
    os.close(ours)
    assert child.wait() == 0
    text = shown.decode()
    assert "0:01" in text  # how long the one that runs has taken
    assert text.count("raw pixels") > 2
    assert text.rindex("+20.0") > text.rindex("0:01")


def test_rows_name_their_section_once():
    first, *others = rows_of("knn", result("knn", "10" * 9, "01" * 9))
    assert first[0] == "nearest neighbours, frozen"
    assert {row[0] for row in others} == {""}


def test_the_estimate_counts_steps_and_starts():
    whole = pace.estimate(step=0.06, measured=8.0, smoke=False)
    assert 7 * 60 < whole < 11 * 60
    assert pace.estimate(step=0.06, measured=8.0, smoke=True) < 90
    assert pace.estimate(step=0.12, measured=16.0, smoke=False) == pytest.approx(2 * whole)


@pytest.mark.slow
def test_the_whole_demo_at_a_small_size(tmp_path):
    out = tmp_path / "demo"
    command = [sys.executable, "-m", "mimsuite", "demo", "--smoke", "--out", str(out)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert "from scratch, equal steps" in done.stdout
    assert "\x1b" not in done.stdout
    summary = json.loads((out / "summary.json").read_text())
    assert summary["first_picture_seconds"] < summary["total_seconds"]
    assert all(Path(tmp_path, picture).is_file() for picture in summary["pictures"])
    assert (out / "report.html").is_file()
