"""Which recipe's model can be written in which format: the table of docs/export.md.

    python tools/export_matrix.py            # prints it
    python tools/export_matrix.py --write    # puts it into the page

Recipes of one method and one modality whose options below `model:` are the same share a row: they
make the same kind of model at other sizes. Numbers are sizes, all else is an option. A model is
built at `--smoke` sizes, with random weights.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import torch

from mimsuite import config
from mimsuite.checkpoints import Opened
from mimsuite.checkpoints.opened import can_reconstruct
from mimsuite.config import Resolved
from mimsuite.export import FORMATS
from mimsuite.methods import Method, build

PAGE = Path(__file__).resolve().parents[1] / "docs" / "export.md"
BEGIN, END = "<!-- formats: made by tools/export_matrix.py -->", "<!-- end of formats -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="into docs/export.md")
    if not parser.parse_args().write:
        print(table())
        return
    text = PAGE.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n{table()}{END}{after}", encoding="utf-8")


def recipes() -> list[str]:
    """Recipes whose model `export` takes; a dictionary is a file of its own."""
    named = config.recipe_names()
    return [one for one in named if config.load(one).recipe.recipe.task != "dictionary"]


@cache
def rows() -> tuple[tuple[str, ...], ...]:
    """Recipes that share a row, by the rule above; the first stands for them."""
    found: dict[tuple[Any, ...], list[str]] = {}
    for name in recipes():
        document = config.load(name, smoke=True).document
        kind = (document["method"]["name"], document["recipe"]["modality"])
        key = (*kind, *_options("model", document["model"]))
        found.setdefault(key, []).append(name)
    return tuple(tuple(names) for names in found.values())


def _options(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _options(f"{key}.{name}", inner)
    elif value is None or isinstance(value, str | bool):
        yield key, value


def opened(recipe: str) -> Opened:
    """A recipe's model at ``--smoke`` sizes, every weight off its first value."""
    resolved = config.load(recipe, smoke=True)
    if getattr(resolved.recipe.target, "classes", 1) is None:
        resolved = config.with_overrides(resolved, {"target.classes": 5}, "table")
    method = _filled(resolved)
    return Opened(method, resolved, recipe, 1, can_reconstruct(method), [])


def _filled(resolved: Resolved) -> Method:
    generator = torch.Generator().manual_seed(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        method = build(resolved.recipe).eval()
    with torch.no_grad():
        for name, parameter in method.named_parameters():
            if not name.endswith("pos_embed"):
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
        for name, buffer in method.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer += torch.rand(buffer.shape, generator=generator)
    return method


def table() -> str:
    """A row for each kind of model, a column for each format, and why some are not there."""
    reasons: dict[str, str] = {}
    lines = [f"| models of | {' | '.join(FORMATS)} |", f"|---|{'---|' * len(FORMATS)}"]
    for names in rows():
        model = opened(names[0])
        cells = []
        for form in FORMATS.values():
            why = form.refuse(model)
            if why is None or " has no " in why:
                cells.append("no" if why else "yes")
            else:
                mark = reasons.setdefault(why, ascii_lowercase[len(reasons)])
                cells.append(f"no ({mark})")
        recipes = ", ".join(f"`{name}`" for name in names)
        lines.append(f"| {recipes} | {' | '.join(cells)} |")
    notes = [
        "- no: there is no such encoder, or no published code of the method.",
        *(f"- ({mark}) {why}." for why, mark in reasons.items()),
    ]
    return "\n".join([*lines, "", *notes, ""])


if __name__ == "__main__":
    main()
