"""The commands of the demo, one after another.

Everything goes through the public command line; each command is shown before it runs, so that it
can be repeated by hand. Does not load torch before the results are compared.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

from mimsuite.console import say
from mimsuite.demo import pace
from mimsuite.demo.commands import answer_of, run_command
from mimsuite.demo.table import FEW, SECTIONS, ResultTable
from mimsuite.errors import UserError
from mimsuite.text import duration

RECIPE = "image/mae-tiny-fashion"
DATA = "embedded:fashion-mnist"
EARLY = "log.pictures_every_epochs=10"  # a first reconstruction after half a minute
ALL = (
    "data.per_class=null",
    "schedule.epochs=10",
    "schedule.warmup_epochs=1",
    "optim.lr=1e-3",
    "optim.scratch_lr=5e-4",
)
MARKER = "demo.json"  # only a folder with this file is ever removed


def run(out: Path, smoke: bool) -> dict[str, Any]:
    """Pretraining, pictures, probes, fine-tuning; writes and returns the summary.

    Raises:
        UserError: ``out`` holds something else than an earlier demo.
        SystemExit: a command failed, or a stop signal came.
    """
    start_over(out)
    begun, clock = time.monotonic(), time.time()
    estimated = pace.measure(RECIPE, smoke)
    say(f"the demo takes about {duration(estimated)} on this machine as busy as it is now")
    say(f"first pictures: {out / 'images'}, a reconstruction every 10 epochs")
    small = ["--smoke"] if smoke else []
    try:
        run_command("pretrain", RECIPE, EARLY, "--out", out, *small)
    finally:
        if out.is_dir():
            write(out / MARKER, {"made_by": "mimsuite demo", "recipe": RECIPE})
    pretrained = time.monotonic()
    first = (out / "images" / "first_batch.png").stat().st_mtime - clock
    pictures = answer_of("reconstruct", out, "--input", DATA, "--out", out / "pictures")
    everything = ALL[:1] if smoke else ALL
    tuned = ("--baselines", *small)
    commands = {
        "linear_probe": ("linear-probe", out, "--baselines"),
        "knn": ("knn", out, "--baselines"),
        "finetune": ("finetune", out, "--out", out / f"finetune-{FEW}", *tuned),
        "finetune_all_labels": (
            "finetune", out, *everything, "--out", out / "finetune-all", *tuned,
        ),
    }  # fmt: skip
    with ResultTable() as table:
        log = out / "demo.log" if table.is_live else None
        results = {}
        for name, words in commands.items():
            table.begin(name)
            results[name] = answer_of(*words, log=log)
            table.add(name, results[name])
    summary = {
        **{name: results[name] for name in SECTIONS},
        "labels_per_class": FEW,
        "first_picture_seconds": round(first, 1),
        "pretrain_seconds": round(pretrained - begun, 1),
        "estimated_seconds": round(estimated, 1),
        "total_seconds": round(time.monotonic() - begun, 1),
        "pictures": [pictures["grid"], *pictures["samples"]],
    }
    write(out / "summary.json", summary)
    return summary


def start_over(out: Path) -> None:
    """Remove an earlier demo, and nothing else.

    Raises:
        UserError: there is something else.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if out.is_symlink() or not _is_demo(out / MARKER):
        raise UserError(f"{out} was not made by this demo: move it, or give another --out")
    say(f"removing the earlier demo in {out}")
    shutil.rmtree(out)


def _is_demo(marker: Path) -> bool:
    try:
        return json.loads(marker.read_text())["recipe"] == RECIPE
    except (OSError, ValueError, KeyError, TypeError):
        return False


def write(path: Path, content: dict[str, Any]) -> None:
    """Write JSON for people."""
    path.write_text(json.dumps(content, indent=2) + "\n")
