"""Training that is killed at random moments ends as if nobody had disturbed it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "soak.py"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="starts runs by fork")
def test_ten_kills_change_nothing():
    done = subprocess.run(
        [sys.executable, str(TOOL), "--kills", "10"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["kills"] >= 10
    assert report["in_saves"] >= 2
    assert report["resumed"] >= 1
    assert (report["corrupt_latest"], report["differences"]) == (0, [])
