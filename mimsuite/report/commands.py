"""The commands that make sense after a run, by how it ended."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from mimsuite.report.run_facts import lookup, read_yaml
from mimsuite.report.status import status_of


def next_steps(run_dir: Path) -> list[tuple[str, str]]:
    """(purpose, command) pairs for a run directory."""
    status = status_of(run_dir)
    if status is None or status[0] != "DONE":
        command = _resume_command(run_dir)
        return [("resume", command)] if command else []
    document = read_yaml(run_dir / "config.yaml")
    run = shlex.quote(str(run_dir))
    source = shlex.quote(str(lookup(document, "data.source") or "SRC"))
    kind = lookup(document, "model.encoder.kind") or "vit"
    export = (
        "export",
        f"mimsuite export {run} --format {'timm' if kind == 'vit' else 'safetensors'}",
    )
    if lookup(document, "recipe.task", "pretrain") != "pretrain":
        return [("score", f"mimsuite evaluate {run} --data {source}"), export]
    pictures = shlex.quote(str(run_dir / "reconstructions"))
    return [
        ("look", f"mimsuite reconstruct {run} --input {source} --out {pictures}"),
        ("probe", f"mimsuite linear-probe {run} --data {source}"),
        ("compare", f"mimsuite knn {run} --data {source}"),
        export,
    ]


def _resume_command(run_dir: Path) -> str | None:
    """The command of the last start, made to resume this directory."""
    try:
        lines = (run_dir / "command.txt").read_text(encoding="utf-8").splitlines()
        return resuming(shlex.split(lines[-1]), run_dir)
    except (OSError, ValueError, IndexError):
        return None


def resuming(words: Sequence[str], out: str | Path | None = None) -> str:
    """A command, given in words, made to go on in ``out``, or in the folder that it names."""
    replaced = ("--resume",) if out is None else ("--out", "--resume")
    kept: list[str] = []
    skip = False
    for word in words:
        if skip or word in replaced:
            skip = not skip
        elif not word.startswith(tuple(f"{option}=" for option in replaced)):
            kept.append(word)
    where = [] if out is None else ["--out", str(out)]
    return shlex.join([*kept, *where, "--resume", "auto"])
