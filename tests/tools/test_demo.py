"""The demo's own parts: what it removes, how it runs commands, its table."""

from __future__ import annotations

import importlib.util
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
            "balanced_accuracy": {**figures, "not_asked_for": None},
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


def test_the_table_has_gains_with_paired_intervals(demo, capsys):
    demo.show(make_summary(demo, "1111111101" * 20, "1111010101" * 20))
    lines = capsys.readouterr().out.splitlines()
    raw = next(line for line in lines if "raw pixels" in line)
    assert raw.split() == ["raw", "pixels", "70.0", "+20.0", "[+14.5,", "+25.5]"]
