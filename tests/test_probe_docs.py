"""The commands of docs/probes.md, run in their order; only sizes are changed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from mimsuite.cli.main import main

DOCS = Path(__file__).parent.parent / "docs" / "probes.md"


@pytest.mark.slow  # half a minute, most of it bootstrap intervals
def test_every_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"^```\n(.*?)^```", DOCS.read_text(), flags=re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()]
    assert len(lines) >= 8
    monkeypatch.chdir(tmp_path)
    for line in lines:
        words = shlex.split(line)[1:]
        if words[0] == "pretrain":
            words += ["--smoke", "data.limit=128", "model.encoder.depth=4"]
        if words[0] in ("linear-probe", "robustness"):
            words += ["eval.layers=[4]", "eval.pool=mean"]
        assert main(words) == 0, line
    assert (tmp_path / "runs/first/low_shot/curve.png").is_file()
    assert (tmp_path / "runs/first-seed1/low_shot.json").is_file()
