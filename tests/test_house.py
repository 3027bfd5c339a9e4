"""The layout of the package: what may import what, and how large rooms and files may be.

Imports inside functions count; imports for types alone do not.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import networkx
import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "mimsuite"

# From the ground floor up: a folder, or a file on its own, imports from those before it.
FLOORS = [
    "errors", "text", "waiting", "children", "batch", "paths", "console", "files", "noise",
    "config", "cluster", "weights", "masking", "tokens", "pictures", "models", "schedule",
    "targets", "methods", "data", "fields", "doctor", "checkpoints", "export", "api", "report",
    "evaluate", "train", "dictionaries", "cli", "demo",
]  # fmt: skip
# Imports that run up: each is one that is known, and no other comes in unseen.
RUN_UP = {
    ("checkpoints", "train"),  # the format of a run's checkpoints, which training writes
    ("evaluate", "train"),  # fine-tuning is training
    ("report", "evaluate"),  # intervals of differences
    ("report", "dictionaries"),  # the page's section on them
    ("cli", "demo"),  # the command of the demo, which runs other commands
}
AT_MOST_FLAT = {"data": 16, "evaluate": 12, "config": 14}
LONGEST = 450  # lines of a file


@cache
def imports() -> networkx.DiGraph:
    """An arrow from each module to those of the package that it imports."""
    files = {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(
            ".__init__"
        ): path
        for path in PACKAGE.rglob("*.py")
    }
    graph = networkx.DiGraph()
    graph.add_nodes_from(files)
    for module, path in files.items():
        for name in _names(ast.parse(path.read_text(encoding="utf-8"))):
            while name and name not in files:
                name = name.rpartition(".")[0]
            if name not in ("", "mimsuite", module):
                graph.add_edge(module, name)
    return graph


def _names(tree: ast.AST) -> Iterator[str]:
    """All that is imported, not for types alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{one.name}" for one in node.names)
        elif isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        yield from _names(node)


def floor_of(module: str) -> str:
    """The folder, or the file, directly below the package."""
    return module.split(".")[1] if "." in module else module


def test_no_ring_of_imports_is_above_three_files() -> None:
    rings = [sorted(ring) for ring in networkx.strongly_connected_components(imports())]
    assert [ring for ring in rings if len(ring) > 3] == []


def test_imports_run_down() -> None:
    arrows = {(floor_of(a), floor_of(b)) for a, b in imports().edges}
    arrows = {(a, b) for a, b in arrows if a != b and a not in ("mimsuite", "__main__")}
    assert {name for arrow in arrows for name in arrow} <= set(FLOORS)
    assert {(a, b) for a, b in arrows if FLOORS.index(a) < FLOORS.index(b)} <= RUN_UP


@pytest.mark.parametrize("folder", AT_MOST_FLAT)
def test_rooms_are_not_heaps(folder: str) -> None:
    files = [path for path in (PACKAGE / folder).glob("*.py") if path.name != "__init__.py"]
    assert len(files) <= AT_MOST_FLAT[folder]


def test_files_are_short() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {str(path): count for path, count in lengths.items() if count > LONGEST} == {}


def test_training_loads_no_method_and_no_layout_of_weights() -> None:
    code = "import sys, mimsuite.train.run; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name for name in found.stdout.split() if name.startswith("mimsuite.")}
    own = {f"mimsuite.methods.{name}" for name in ("base", "registry")}
    kinds = ("mimsuite.methods.", "mimsuite.export", "mimsuite.checkpoints")
    assert {name for name in loaded if name.startswith(kinds)} - own == set()
