"""The commands of docs/pictures.md and docs/export.md, each run as printed, with `--smoke`."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from mimsuite.cli.main import main

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("page", ["pictures.md", "export.md"])
def test_every_command_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```\n(.*?)^```", (DOCS / page).read_text(), flags=re.DOTALL | re.M)
    lines = [line for block in blocks for line in block.splitlines()]
    assert len(lines) >= 3
    for line in lines:
        words = shlex.split(line)[1:]
        if words[0] == "pretrain":
            words += ["--smoke", "data.limit=400", "--device", "cpu"]
        if words[0] == "knn":
            words += ["data.limit=400"]
        assert main(words) == 0, line
