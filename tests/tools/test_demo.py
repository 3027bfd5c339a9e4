"""The demo's own parts: what it removes, how it runs commands, how it sums up seeds."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "tools" / "demo.py"


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mimsuite_demo", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_summary(demo: ModuleType, ours: str, theirs: str) -> dict:
    def section(baselines: tuple[str, ...]) -> dict:
        right = {"pretrained": ours, **dict.fromkeys(baselines, theirs)}
        figures = {name: text.count("1") / len(text) for name, text in right.items()}
        return {
            "accuracy": figures,
            "balanced_accuracy": figures,
            "right": right,
            "protocol": "as tested",
        }

    sections = {name: section(baselines) for name, (_, baselines) in demo.SECTIONS.items()}
    return {**sections, "pretrain_seconds": 1.0, "total_seconds": 2.0}


def test_only_an_earlier_demo_is_removed(demo, tmp_path, capsys):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "config.yaml").write_text("somebody's run")
    with pytest.raises(SystemExit, match="was not made by this demo"):
        demo.start_over(mine)
    assert (mine / "config.yaml").exists()

    demo.write(mine / demo.MARKER, {"made_by": "tools/demo.py"})
    link = tmp_path / "link"
    link.symlink_to(mine)
    with pytest.raises(SystemExit, match="was not made by this demo"):
        demo.start_over(link)

    demo.start_over(mine)
    assert not mine.exists()
    assert "removing the earlier demo" in capsys.readouterr().err
    demo.start_over(mine)  # nothing there: nothing to do


@pytest.mark.parametrize("content", ["", "[]", '"text"', '{"made_by": "another"}'])
def test_a_strange_marker_is_no_marker(demo, tmp_path, content):
    (tmp_path / demo.MARKER).write_text(content)
    with pytest.raises(SystemExit):
        demo.start_over(tmp_path)
    assert (tmp_path / demo.MARKER).read_text() == content


def test_a_failing_command_is_shown_and_ends_the_demo(demo, capsys):
    with pytest.raises(SystemExit) as stopped:
        demo.mimsuite("recipes", "show", "no/such recipe")
    assert stopped.value.code == 2
    assert "$ mimsuite recipes show 'no/such recipe'" in capsys.readouterr().err


def test_seeds_are_summed_up_with_paired_intervals(demo, capsys):
    summaries = [
        make_summary(demo, "1111111101" * 20, "1111010101" * 20),
        make_summary(demo, "1111111111" * 20, "1111010111" * 20),
    ]
    result = json.loads(json.dumps(demo.over_seeds([0, 1], summaries)))
    accuracy = result["finetune"]["balanced_accuracy"]["pretrained"]
    assert accuracy == {"mean": pytest.approx(0.95), "min": 0.9, "max": 1.0, "values": [0.9, 1.0]}
    gain = result["linear_probe"]["gains"]["raw_input"]
    assert gain["difference"] == pytest.approx(0.2)
    assert 0 < gain["low"] < gain["difference"] < gain["high"]
    assert gain["seeds"] == 2

    demo.show(summaries)
    table = capsys.readouterr().out
    assert "95.0 (90.0-100.0)" in table
    assert "raw pixels" in table
    assert "2 seed(s)" in table
