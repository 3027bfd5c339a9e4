"""The stored golden cases, and ways to change them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

GOLDENS = Path(__file__).parent / "goldens"
CASES = sorted(GOLDENS.rglob("*.json"))


def stored(name: str) -> Path:
    """The JSON file of a case."""
    return next(path for path in CASES if path.stem == name)


def document(name: str) -> dict[str, Any]:
    """A fresh copy of its content."""
    return json.loads(stored(name).read_text())


def tensors(name: str) -> dict[str, Tensor]:
    """Its inputs and answers."""
    return load_file(stored(name).with_suffix(".safetensors"))


def write(folder: Path, case: dict[str, Any], stored_tensors: dict[str, Tensor]) -> Path:
    """A case of one's own; returns its JSON file."""
    path = folder / "case.json"
    path.write_text(json.dumps(case))
    if stored_tensors:
        save_file(stored_tensors, path.with_suffix(".safetensors"))
    return path
