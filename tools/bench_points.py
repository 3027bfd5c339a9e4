"""Time a Point-MAE training step beside a plain implementation in the published layout.

The plain side is `plain_points.py` with default AdamW. It passes the same golden case as the suite,
which is checked first. Both run in one process, in turns A B B A, on process CPU time. Prints one
JSON line; `--check` exits 1 below the promised ratios.

    .venv/bin/python tools/bench_points.py --rounds 3
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from typing import Any

import torch
from plain_points import PlainPointMAE, check_plain
from turns import in_turns, seconds

from mimsuite import config
from mimsuite.config import Resolved
from mimsuite.tokens import group
from mimsuite.train.bench import Stepper

PROMISED = {"ratio": 1.3, "visible_ratio": 1.9}
MOST_GROUPING = 0.02  # of a step


def plain_stepper(resolved: Resolved, batch: int, *, fused: bool) -> Callable[[], None]:
    """The same step on the plain side."""
    recipe: Any = resolved.recipe
    encoder, decoder = recipe.model.encoder, recipe.model.decoder
    keys = ("width", "depth", "heads", "groups", "group_size")
    sizes = {key: getattr(encoder, key) for key in keys}
    sizes |= {"decoder_depth": decoder.depth, "decoder_heads": decoder.heads}
    model = PlainPointMAE(sizes | {"ratio": recipe.mask.ratio}).train()
    options = {"fused": True} if fused else {}
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, weight_decay=0.05, **options)
    points = torch.randn(batch, encoder.points, 3)
    points /= points.norm(dim=2, keepdim=True)

    def run() -> None:
        optimizer.zero_grad()
        model(points).backward()
        optimizer.step()

    return run


def grouping_seconds(resolved: Resolved, batch: int) -> float:
    encoder: Any = resolved.recipe.model.encoder
    points = torch.randn(batch, encoder.points, 3)
    run = lambda: group(points, encoder.groups, encoder.group_size)  # noqa: E731
    return min(seconds(run) for _ in range(3))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    check_plain()
    still = ["model.encoder.drop_path=0", "model.decoder.drop_path=0"]
    recipe = config.load("points/mae-shapenet55", still)
    visible = config.load("points/mae-visible-shapenet55", still)
    sides = {
        "ours": Stepper(recipe, options.batch, torch.device("cpu")),
        "visible": Stepper(visible, options.batch, torch.device("cpu")),
        "plain": plain_stepper(recipe, options.batch, fused=False),
        "plain_fused": plain_stepper(recipe, options.batch, fused=True),
    }
    times = in_turns(sides, options.rounds)
    best = {name: statistics.median(values) for name, values in times.items()}
    figures = {
        "ratio": best["plain"] / best["ours"],
        "ratio_both_fused": best["plain_fused"] / best["ours"],
        "visible_ratio": best["plain"] / best["visible"],
        "grouping_share": grouping_seconds(recipe, options.batch) / best["ours"],
        **{f"{name}_seconds": value for name, value in best.items()},
        "spread": {name: [min(values), max(values)] for name, values in times.items()},
        "batch": options.batch,
        "threads": options.threads,
        "rounds": options.rounds,
    }
    print(json.dumps(figures))
    below = any(figures[name] < least for name, least in PROMISED.items())
    return int(options.check and (below or figures["grouping_share"] > MOST_GROUPING))


if __name__ == "__main__":
    sys.exit(main())
