"""Does pretraining help on a small set of clouds? Every fold and seed, with all baselines.

    python tools/compare_folds.py points/cmae-tiny-furniture --page docs/point-methods.md

For each seed and fold one encoder is pretrained, without labels, on the other folds. On the fold
that it has not seen: a linear probe and nearest neighbours of its frozen features beside the same
encoder with random weights, raw input and the majority class; and fine-tuning beside training from
scratch, at equal steps and at equal total compute. All of that is chosen on training folds.

Every object is tested once a seed, so figures are of the whole set, and an interval draws seeds
and objects. What is done is kept in the folder: the command goes on where it was stopped, and
`--tables` prints what there is.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from compare_methods import FIGURES, WORDS, folder_of, measure, mimsuite, table

TITLES = {
    "linear_probe": "Linear probe of frozen features",
    "knn": "Nearest neighbours of frozen features",
    "finetune": "Fine-tuning",
}
NOTES = "## How the recipe was chosen"  # what a page has from there on is written by hand
ACCURACIES = ("accuracy", "balanced_accuracy")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe")
    parser.add_argument("keys", nargs="*", metavar="KEY=VALUE", help="changes to the recipe")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/folds"), help="folder for it all")
    parser.add_argument("--no-tuning", action="store_true", help="frozen features only")
    parser.add_argument("--tables", action="store_true", help="of what is done; do nothing")
    parser.add_argument("--page", type=Path, help="write the tables there, as Markdown")
    options = parser.parse_args()
    if not options.tables:
        works = (pretrain, probe) if options.no_tuning else (pretrain, probe, tune)
        for seed in options.seeds:  # a seed that is complete is a figure of the whole set
            for work in works[:2]:
                for fold in range(options.folds):
                    work(seed, fold, options)
        for work in works[2:]:
            for seed in options.seeds:
                for fold in range(options.folds):
                    work(seed, fold, options)
    page = tables(options)
    print(page)
    if options.page:
        old = options.page.read_text(encoding="utf-8") if options.page.exists() else ""
        _, heading, notes = old.partition(NOTES)
        options.page.write_text(f"{page}\n{heading}{notes}", encoding="utf-8")
    return 0


def place(seed: int, fold: int, options: argparse.Namespace) -> Path:
    folder: Path = folder_of(options.out, options.recipe)
    return folder / f"seed-{seed}" / f"fold-{fold}"


def pretrain(seed: int, fold: int, options: argparse.Namespace) -> None:
    folder = place(seed, fold, options) / "run"
    if (folder / "DONE").exists():
        return
    keys = (
        *options.keys,
        f"data.folds={options.folds}",
        f"data.fold={fold}",
        f"train.seed={seed}",
        "train.threads=1",
        "log.pictures_every_epochs=null",
    )
    mimsuite("pretrain", options.recipe, *keys, "--out", folder, "--resume", "auto")


def probe(seed: int, fold: int, options: argparse.Namespace) -> None:
    folder = place(seed, fold, options)
    frozen = ("--baselines", "--seed", seed, "--json")
    measure(folder / "linear_probe.json", "linear-probe", folder / "run", *frozen)
    measure(folder / "knn.json", "knn", folder / "run", *frozen)


def tune(seed: int, fold: int, options: argparse.Namespace) -> None:
    folder = place(seed, fold, options)
    words = ("--baselines", "--equal-compute", "--seed", seed, "--json")
    out = ("--out", folder / "tuned")
    measure(folder / "finetune.json", "finetune", folder / "run", *out, *words)


# --- tables --------------------------------------------------------------------------------------


def tables(options: argparse.Namespace) -> str:
    changes = "".join(f" {key}" for key in options.keys)
    lines = [
        f"# {options.recipe}, fold by fold",
        "",
        f"{options.folds} folds, each pretrained and trained without the objects it is tested on. "
        "Accuracy in %, over all objects: mean (lowest to highest seed) and the gain over each "
        "baseline with its 95 % interval, paired by seed and object; balanced accuracy likewise. "
        "Only seeds with all folds count.",
        "",
        "```",
        f"python tools/compare_folds.py {options.recipe}{changes} --folds {options.folds} "
        f"--seeds {' '.join(map(str, options.seeds))}",
        "```",
        "",
    ]
    for kind, baselines in FIGURES.items():
        seeds = [found for seed in options.seeds if (found := whole_set(seed, kind, options))]
        if not seeds:
            continue
        head = ("figure", "pretrained", *(f"{WORDS[one]}: its, gain" for one in baselines))
        rows = [
            (
                name.replace("_", " "),
                spread(seeds, name, "pretrained"),
                *(f"{spread(seeds, name, one)}{gain(seeds, name, one)}" for one in baselines),
            )
            for name in ACCURACIES
        ]
        count = f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''}"
        tested = f"{count}, {len(seeds[0]['labels'])} objects"
        lines += [f"## {TITLES[kind]} ({tested})", "", *table(head, rows)]
    return "\n".join(lines)


def whole_set(seed: int, kind: str, options: argparse.Namespace) -> dict[str, Any] | None:
    """One seed's answers on all folds as if they were one test split; None: some are missing."""
    import json

    paths = [place(seed, fold, options) / f"{kind}.json" for fold in range(options.folds)]
    if not all(path.exists() for path in paths):
        return None
    return joined([json.loads(path.read_text()) for path in paths])


def joined(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Folds one after the other: ``labels``, ``right`` of each variant, both accuracies."""
    labels = [label for part in parts for label in part["labels"]]
    right = {name: "".join(part["right"][name] for part in parts) for name in parts[0]["right"]}
    result: dict[str, Any] = {"labels": labels, "right": right}
    for name in ACCURACIES:
        weight = weights(labels, name)
        result[name] = {
            variant: sum(w for w, mark in zip(weight, marks, strict=True) if mark == "1")
            for variant, marks in right.items()
        }
    return result


def weights(labels: list[int], name: str) -> list[float]:
    """Of each object in an accuracy; they add up to 1."""
    if name == "accuracy":
        return [1 / len(labels)] * len(labels)
    counts = {label: labels.count(label) for label in set(labels)}
    return [1 / (len(counts) * counts[label]) for label in labels]


def spread(seeds: list[dict[str, Any]], name: str, variant: str) -> str:
    if variant not in seeds[0][name]:
        return ""
    values = [100 * seed[name][variant] for seed in seeds]
    mean = f"{sum(values) / len(values):.1f}"
    return mean if min(values) == max(values) else f"{mean} ({min(values):.1f}-{max(values):.1f})"


def gain(seeds: list[dict[str, Any]], name: str, baseline: str) -> str:
    """Gain over a baseline with its interval, paired by seed and object."""
    if baseline not in seeds[0]["right"] or baseline == "majority":
        return ""
    import torch

    from mimsuite.evaluate.bootstrap import paired_interval

    def right(variant: str) -> torch.Tensor:  # (seeds, objects)
        return torch.tensor([[int(mark) for mark in seed["right"][variant]] for seed in seeds])

    weight = torch.tensor(weights(seeds[0]["labels"], name), dtype=torch.float64)
    found = paired_interval(right("pretrained"), right(baseline), weights=weight)
    ends = f"{100 * found.low:+.1f}, {100 * found.high:+.1f}"
    return f", {100 * found.difference:+.1f} [{ends}]"


if __name__ == "__main__":
    sys.exit(main())
