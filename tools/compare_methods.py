"""Methods side by side at equal compute: tiny recipes over seeds, with their baselines.

    python tools/compare_methods.py image --budget 100 --seeds 0 1 2 --page docs/image-methods.md

Every method pretrains for the same CPU seconds of training steps (teachers counted), measured on
this machine just before. Then, on the same test samples: a linear probe and nearest neighbours of
frozen features with the same encoder at random initialisation, raw input and the majority class
beside them; and fine-tuning with few labels beside training from scratch, at equal steps and at
equal total compute. Rates of the three are chosen from a grid each on a held-out fifth of the
training split, at the first seed; nothing is chosen on test samples.

What is done is kept in the folder: the command goes on where it was stopped. A method that learns
from a run of another one gets it by `--with RECIPE KEY=VALUE`, where {seed} stands for the seed and
the other recipe comes first in `--recipes`; that run's own training is not counted. RECIPE@WORD is
the recipe changed by its `--with` lines: an ablation.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

RATES = (0.3, 1.0, 3.0)  # of the fine-tuning recipe's, for each of the three
FIGURES = {
    "linear_probe": ("random_init", "raw_input", "majority"),
    "knn": ("random_init", "raw_input", "majority"),
    "finetune": ("from_scratch", "from_scratch_equal_compute"),
}
WORDS = {
    "random_init": "random encoder",
    "raw_input": "raw input",
    "majority": "majority",
    "from_scratch": "scratch, equal steps",
    "from_scratch_equal_compute": "scratch, equal compute",
}
TITLES = {
    "linear_probe": "Linear probe of frozen features",
    "knn": "Nearest neighbours of frozen features",
    "finetune": "Fine-tuning with 20 labels a class",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modality", help="image, video, points or grids")
    parser.add_argument("--recipes", nargs="+", metavar="NAME", help="instead of all tiny ones")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--budget", type=float, default=100.0, help="CPU seconds of pretraining")
    parser.add_argument("--out", type=Path, default=Path("runs/compare"), help="folder for it all")
    parser.add_argument(
        "--with", nargs=2, action="append", default=[], metavar=("RECIPE", "KEY=VALUE"), dest="keys"
    )
    parser.add_argument("--no-tuning", action="store_true", help="frozen features only")
    parser.add_argument("--page", type=Path, help="write the tables there, as Markdown")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at once")
    options = parser.parse_args()
    names = options.recipes or tiny_recipes(options.modality)
    options.out.mkdir(parents=True, exist_ok=True)
    first, *others = options.seeds
    with ThreadPoolExecutor(options.jobs) as pool:
        for work in (pretrain, probe) if options.no_tuning else (pretrain, probe, tune):
            for seeds in ([first], others):  # the first seed measures steps and chooses the rates
                jobs = [(name, seed, options) for seed in seeds for name in names]
                list(pool.map(work, *zip(*jobs, strict=True)))
    page = tables(names, options)
    print(page)
    if options.page:
        options.page.write_text(page, encoding="utf-8")
    return 0


def tiny_recipes(modality: str) -> list[str]:
    """Names of the pretraining recipes that are made for a CPU."""
    from mimsuite import config

    found = [name for name in config.recipe_names() if "-tiny-" in name]
    loaded = {name: config.load(name).recipe.recipe for name in found}
    return [n for n in found if (loaded[n].modality, loaded[n].task) == (modality, "pretrain")]


def plan(name: str, keys: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """CPU seconds of a step on one thread, and the epochs that fill the budget."""
    path = folder_of(options.out, name) / "plan.json"
    if path.exists():
        return json.loads(path.read_text())
    from mimsuite import config
    from mimsuite.data import open_training_set

    recipe = config.load(recipe_of(name)).recipe
    batch = recipe.train.global_batch
    words = [
        "bench",
        "step",
        recipe_of(name),
        *keys,
        "--batch",
        str(batch),
        "--threads",
        "1",
        "--json",
    ]
    step = json.loads(mimsuite(*words))["seconds_per_step"]
    steps = max(1, round(options.budget / step))
    found = {
        "seconds_per_step": step,
        "steps": steps,
        "epochs": steps / (len(open_training_set(recipe)) // batch),
        "warmup": recipe.schedule.warmup_epochs / recipe.schedule.epochs,
        "budget": options.budget,
    }
    write(path, found)
    return found


def pretrain(name: str, seed: int, options: argparse.Namespace) -> None:
    own = [key.replace("{seed}", str(seed)) for whose, key in options.keys if whose == name]
    planned = plan(name, own, options)
    folder, epochs = folder_of(options.out, name) / f"seed-{seed}" / "run", planned["epochs"]
    keys = (
        *own,
        f"schedule.epochs={epochs:.4f}",
        f"schedule.warmup_epochs={epochs * planned['warmup']:.4f}",
        f"train.seed={seed}",
        "train.threads=1",
        "log.pictures_every_epochs=null",
    )
    if not (folder / "DONE").exists():
        mimsuite("pretrain", recipe_of(name), *keys, "--out", folder, "--resume", "auto")


def probe(name: str, seed: int, options: argparse.Namespace) -> None:
    folder = folder_of(options.out, name) / f"seed-{seed}"
    frozen = ("--baselines", "--seed", seed, "--json")
    measure(folder / "linear_probe.json", "linear-probe", folder / "run", *frozen)
    measure(folder / "knn.json", "knn", folder / "run", *frozen)


def tune(name: str, seed: int, options: argparse.Namespace) -> None:
    first = options.seeds[0]
    folder = folder_of(options.out, name) / f"seed-{seed}"
    words = ["--baselines", "--equal-compute", "--seed", seed, "--json"]
    chosen = folder_of(options.out, name) / f"seed-{first}" / "finetune.json"
    words += ["--rates", ",".join(map(str, RATES)) if seed == first else chosen]
    out = ("--out", folder / "tuned")
    measure(folder / "finetune.json", "finetune", folder / "run", *out, *words)


def measure(path: Path, *words: object) -> None:
    """Keep a command's JSON answer, unless it is there."""
    if not path.exists():
        resume = ("--resume", "auto") if words[0] == "finetune" else ()
        write(path, json.loads(mimsuite(*words, *resume)))


def mimsuite(*words: object) -> str:
    command = [sys.executable, "-m", "mimsuite", *map(str, words)]
    print("$ mimsuite", *words, file=sys.stderr, flush=True)
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    if done.returncode:
        raise SystemExit(f"{done.stderr.strip()}\nerror: {words[0]} ended with {done.returncode}")
    return done.stdout


# --- tables --------------------------------------------------------------------------------------


def tables(names: list[str], options: argparse.Namespace) -> str:
    seeds = options.seeds
    plans = {name: plan(name, [], options) for name in names}
    lines = [f"# {options.modality.capitalize()} methods side by side", ""]
    count = f"{len(seeds)} seeds" if len(seeds) > 1 else "one seed"
    lines += [
        f"Tiny recipes, {options.budget:g} CPU seconds of pretraining steps each (teachers "
        f"counted), {count}. Balanced accuracy on the test split in %: mean (lowest to highest) "
        "and the gain over each baseline with its 95 % interval, paired by seed and sample.",
        "",
        "```",
        f"python tools/compare_methods.py {options.modality} --budget {options.budget:g} "
        f"--seeds {' '.join(map(str, seeds))}",
        "```",
        "",
    ]
    steps = [
        (n, f"{plans[n]['steps']}", f"{1e3 * plans[n]['seconds_per_step']:.0f}") for n in names
    ]
    lines += table(("recipe", "steps", "ms a step"), steps)
    for kind, baselines in FIGURES.items():
        if options.no_tuning and kind == "finetune":
            continue
        rows = []
        for name in names:
            parts = [result(options.out, name, seed, kind) for seed in seeds]
            rows.append((name, spread(parts, "pretrained"), *versus(parts, baselines)))
        head = ("recipe", "pretrained", *(f"{WORDS[b]}: its, gain" for b in baselines))
        lines += [f"## {TITLES[kind]}", "", *table(head, rows)]
    return "\n".join(lines)


def result(out: Path, name: str, seed: int, kind: str) -> dict[str, Any]:
    return json.loads((folder_of(out, name) / f"seed-{seed}" / f"{kind}.json").read_text())


def versus(parts: list[dict[str, Any]], baselines: tuple[str, ...]) -> list[str]:
    return [f"{spread(parts, one)}, {gain(parts, one)}" for one in baselines]


def spread(parts: list[dict[str, Any]], variant: str) -> str:
    values = [100 * part["balanced_accuracy"][variant] for part in parts]
    mean = f"{sum(values) / len(values):.1f}"
    return mean if min(values) == max(values) else f"{mean} ({min(values):.1f}-{max(values):.1f})"


def gain(parts: list[dict[str, Any]], baseline: str) -> str:
    """Gain in balanced accuracy with its interval, paired by seed and sample."""
    if baseline not in parts[0]["right"]:  # a constant guess
        return ""
    import torch

    from mimsuite.evaluate.bootstrap import balancing_weights, paired_interval

    def right(variant: str) -> torch.Tensor:  # (seeds, samples)
        return torch.tensor([[int(c) for c in part["right"][variant]] for part in parts])

    weights = balancing_weights(torch.tensor(parts[0]["labels"]))
    interval = paired_interval(right("pretrained"), right(baseline), weights=weights)
    ends = f"{100 * interval.low:+.1f}, {100 * interval.high:+.1f}"
    return f"{100 * interval.difference:+.1f} [{ends}]"


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    lines = [head, tuple("---" for _ in head), *rows]
    return [f"| {' | '.join(line)} |" for line in lines] + [""]


def recipe_of(name: str) -> str:
    return name.partition("@")[0]


def folder_of(out: Path, name: str) -> Path:
    return out / name.replace("/", "-")


def write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(content, indent=1) + "\n")
    draft.replace(path)


if __name__ == "__main__":
    sys.exit(main())
