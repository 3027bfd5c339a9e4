"""tools/mutation_sites.py: each mutant is another program, and only in one place."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

TOOLS = Path(__file__).parents[2] / "tools"
sys.path[:0] = [str(TOOLS)]
from mutation_rooms import EQUIVALENT, ROOMS  # noqa: E402
from mutation_sites import mutants, mutated  # noqa: E402

SOURCE = '''"""Docstring of 3 words."""
LIMIT: int = 4

def share(rows: list[int], most: int = 2) -> float:
    if not rows or len(rows) > most:
        raise ValueError(f"{len(rows)} rows")
    rows.append(0)
    total = sum(rows) // max(len(rows), 1)
    total += 1.5
    return round(total * -0.5)
'''


def test_changes_of_a_function() -> None:
    changes = {mutant.change for mutant in mutants(SOURCE)}
    assert {
        "4 -> 5",
        "4 -> 3",
        "2 -> 1",
        "not rows or len(rows) > most -> not rows and len(rows) > most",
        "len(rows) > most -> len(rows) >= most",
        "not rows -> rows",
        "raise ValueError(f'{len(rows)} rows') -> pass",
        "rows.append(0) -> pass",
        "max(len(rows), 1) -> min(len(rows), 1)",
        "sum(rows) // max(len(rows), 1) -> -(-sum(rows) // max(len(rows), 1))",
        "total += 1.5 -> pass",
        "total += 1.5 -> total -= 1.5",
        "1.5 -> 1.875",
        "total * -0.5 -> total / -0.5",
        "-0.5 -> 0.5",
        "round(total * -0.5) -> int(total * -0.5)",
    } <= changes


def test_each_mutant_is_another_program() -> None:
    found = mutants(SOURCE)
    programs = {mutated(SOURCE, mutant) for mutant in found}
    assert ast.unparse(ast.parse(SOURCE)) not in programs
    assert len(programs) == len(found)
    for mutant in found:
        compile(mutated(SOURCE, mutant), "mutant", "exec")
    assert [mutant.number for mutant in found] == list(range(len(found)))


def test_rooms_name_what_is_there() -> None:
    root = TOOLS.parent
    for sources, tests in ROOMS.values():
        for pattern in [*sources, *(test.partition("::")[0] for test in tests)]:
            assert list(root.glob(pattern)), pattern
    for module, change in EQUIVALENT:
        found = {mutant.change for mutant in mutants((root / module).read_text())}
        assert change in found, f"{module} has no more {change}"
