"""``card.html``: whether pretraining was worth it, on one page that loads nothing else."""

from __future__ import annotations

from pathlib import Path

import mimsuite
from mimsuite.errors import UserError
from mimsuite.files import write_atomic
from mimsuite.report.curves import draw_curves
from mimsuite.report.html import document, join, section, tag
from mimsuite.report.page import curves, header, key_figures, reconstructions
from mimsuite.report.results import results
from mimsuite.report.run_facts import RunFacts
from mimsuite.report.slides import SCRIPT

_RANKS = (
    "RankMe and LiDAR are diagnostics: whether they order runs as a probe does depends on the data "
    "and on what is compared."
)


def write_card(run_dir: Path, out: Path | None = None) -> Path:
    """Write the report card of a run from what is in its directory.

    Args:
        out: the page; ``None`` = ``card.html`` in the run.

    Raises:
        UserError: no run directory, or the page cannot be written.
    """
    if not (run_dir / "config.yaml").is_file():
        raise UserError(f"{run_dir} is no run directory: it has no config.yaml")
    path = out or run_dir / "card.html"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return write_atomic(path, card(run_dir))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def card(run_dir: Path) -> str:
    """The page; parts without files to show are left out."""
    run = RunFacts.read(run_dir)
    name = run.key("recipe.title") or run_dir.resolve().name
    ranks = run.column("rankme") or run.column("lidar")
    return document(
        name,
        header(run, name),
        *results(run_dir, ask=True),
        section("Training", key_figures(run)),
        section(
            "Curves",
            join(
                [
                    curves(run_dir, draw_curves(run_dir)),
                    tag("p", _RANKS, class_="faint") if ranks else "",
                ]
            ),
        ),
        section("Reconstructions", reconstructions(run_dir)),
        tag("p", f"mimsuite {mimsuite.__version__}", class_="faint"),
        script=SCRIPT,
    )
