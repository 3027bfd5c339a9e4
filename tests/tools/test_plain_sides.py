"""The plain sides of the benchmarks compute the published functions."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))


@pytest.mark.parametrize("name", ["plain_image", "plain_points", "plain_volume"])
def test_the_plain_side_passes_its_golden_case(name: str) -> None:
    import_module(name).check_plain()
