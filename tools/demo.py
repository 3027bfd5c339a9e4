"""The demo: pretrain a small masked autoencoder on real images and measure what it has learnt.

Everything goes through the public command line; each command is shown before it runs, so that it
can be repeated by hand. On two CPU cores all of it took eight and a half minutes.

    python tools/demo.py
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from mimsuite.children import passing_signals_on, start_child

RECIPE = "image/mae-tiny-fashion"
DATA = "embedded:fashion-mnist"
FEW = 20  # labels a class: what the fine-tuning recipe takes
ALL = (
    "data.per_class=null",
    "schedule.epochs=10",
    "schedule.warmup_epochs=1",
    "optim.lr=1e-3",
    "optim.scratch_lr=5e-4",
)
MARKER = "demo.json"  # only what holds this file is ever removed

# Result -> (title, what the pretrained encoder is compared with).
SECTIONS = {
    "finetune": (f"fine-tuning, {FEW} labels a class", ("from_scratch",)),
    "finetune_all_labels": ("fine-tuning, all labels", ("from_scratch",)),
    "linear_probe": ("linear probe, frozen", ("random_init", "raw_input", "majority")),
    "knn": ("nearest neighbours, frozen", ("random_init", "raw_input", "majority")),
}
WORDS = {
    "from_scratch": "from scratch, equal steps",
    "random_init": "random encoder",
    "raw_input": "raw pixels",
    "majority": "majority class",
}


def main() -> int:
    parser = argparse.ArgumentParser(description="Pretrain on real images and measure the result.")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="run directory")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: does it run at all?")
    options = parser.parse_args()
    show(run(options.out, options.smoke))
    say(f"\n{options.out}/report.html shows the run, {options.out}/summary.json all figures.")
    return 0


def run(out: Path, smoke: bool) -> dict[str, Any]:
    """Pretraining, pictures, probes, fine-tuning; writes and returns the summary."""
    start_over(out)
    small = ["--smoke"] if smoke else []
    begun = time.monotonic()
    try:
        mimsuite("pretrain", RECIPE, "--out", out, *small)
    finally:
        if out.is_dir():
            write(out / MARKER, {"made_by": "tools/demo.py", "recipe": RECIPE})
    pretrained = time.monotonic()
    pictures = asked("reconstruct", out, "--input", DATA, "--out", out / "pictures")
    everything = ALL[:1] if smoke else ALL
    tuned = ("--baselines", *small)
    results = {
        "linear_probe": asked("linear-probe", out, "--baselines"),
        "knn": asked("knn", out, "--baselines"),
        "finetune": asked("finetune", out, "--out", out / f"finetune-{FEW}", *tuned),
        "finetune_all_labels": asked(
            "finetune", out, *everything, "--out", out / "finetune-all", *tuned
        ),
    }
    summary = {
        **{name: results[name] for name in SECTIONS},
        "labels_per_class": FEW,
        "pretrain_seconds": round(pretrained - begun, 1),
        "total_seconds": round(time.monotonic() - begun, 1),
        "pictures": [pictures["grid"], *pictures["samples"]],
    }
    write(out / "summary.json", summary)
    return summary


def start_over(out: Path) -> None:
    """Remove an earlier demo, and nothing else."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if out.is_symlink() or not _made_here(out / MARKER):
        raise SystemExit(f"error: {out} was not made by this demo: move it, or give another --out")
    say(f"removing the earlier demo in {out}")
    shutil.rmtree(out)


def _made_here(marker: Path) -> bool:
    try:
        return json.loads(marker.read_text())["made_by"] == "tools/demo.py"
    except (OSError, ValueError, KeyError, TypeError):
        return False


def mimsuite(*words: object, capture: bool = False) -> str:
    """Show a command and run it; ends the demo where it fails."""
    command = [str(word) for word in words]
    say(f"\n$ mimsuite {shlex.join(command)}")
    children: list[subprocess.Popen[str]] = []
    with passing_signals_on(children) as signalled:
        program = [sys.executable, "-m", "mimsuite", *command]
        stdout = subprocess.PIPE if capture else None
        children.append(start_child(program, stdout=stdout, text=True))
        answer, _ = children[0].communicate()
    code = children[0].returncode
    if signalled():
        raise SystemExit(128 + signalled())
    if code:
        say(f"error: that command ended with exit code {code}")
        raise SystemExit(code)
    return answer or ""


def asked(*words: object) -> dict[str, Any]:
    """The JSON answer of a command."""
    answer: dict[str, Any] = json.loads(mimsuite(*words, "--json", capture=True))
    return answer


def gain(part: dict[str, Any], baseline: str) -> dict[str, float]:
    """Gain in accuracy, paired by sample, with its 95 % bootstrap interval.

    The test split has equally many samples of each class, so balanced accuracy is the same.
    """
    import torch

    from mimsuite.evaluate.bootstrap import paired_interval

    def right(variant: str) -> torch.Tensor:  # (1 seed, samples)
        return torch.tensor([[int(c) for c in part["right"][variant]]])

    return paired_interval(right("pretrained"), right(baseline)).as_dict()


def show(summary: dict[str, Any]) -> None:
    """The table: one line for each way of measuring and baseline."""
    rows = []
    for name, (title, baselines) in SECTIONS.items():
        figures = summary[name]["balanced_accuracy"]
        ours = f"{100 * figures['pretrained']:.1f}"
        for baseline in baselines:
            interval = gain(summary[name], baseline)
            low, high = (f"{100 * interval[end]:+.1f}" for end in ("low", "high"))
            gained = f"{100 * interval['difference']:+.1f}  [{low}, {high}]"
            theirs = f"{100 * figures[baseline]:.1f}"
            rows.append((title, ours, WORDS[baseline], theirs, gained))
            title = ours = ""
    header = ("balanced accuracy, %", "pretrained", "compared with", "has", "gain  [95 %]")
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    print()
    for row in (header, tuple("-" * width for width in widths), *rows):
        print("  ".join(map(str.ljust, row, widths)).rstrip())
    print(f"\n{summary['total_seconds'] / 60:.1f} minutes; test samples were scored once.")
    print("Intervals cover the choice of test samples only; `make evidence` covers training too.")


def write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
