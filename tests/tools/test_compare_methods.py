"""The comparison of methods, at a size that says nothing: the whole way from steps to a page."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "compare_methods.py"


@pytest.mark.slow  # half a minute
def test_a_page_is_written(tmp_path: Path) -> None:
    sizes = ("--seeds", "0", "--budget", "1", "--no-tuning", "--jobs", "1")
    places = ("--out", tmp_path / "runs", "--page", tmp_path / "page.md")
    command = [sys.executable, TOOL, "image", "--recipes", "image/mae-tiny-fashion"]
    done = subprocess.run([*command, *sizes, *places], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "page.md").read_text()
    assert "| image/mae-tiny-fashion |" in page
    assert "random encoder" in page
