"""Time a NeRF-MAE training step beside a plain implementation in the published layout.

The plain side is `plain_volume.py`, with default AdamW and with fused AdamW. It passes the same
golden case as the suite, which is checked first. All run in one process, in turns A B B A, on
process CPU time. Prints one JSON line; `--check` exits 1 below the promised ratio.

    .venv/bin/python tools/bench_volume.py --rounds 3
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from typing import Any

import torch
from plain_volume import PlainNerfMAE, check_plain
from turns import in_turns

from mimsuite import config
from mimsuite.config import Resolved
from mimsuite.train.bench import Stepper

PROMISED = 1.15


def plain_stepper(resolved: Resolved, batch: int, *, fused: bool) -> Callable[[], None]:
    """The same step on the plain side."""
    recipe: Any = resolved.recipe
    encoder = recipe.model.encoder
    model = PlainNerfMAE(encoder.resolution, encoder.width, encoder.depths, encoder.heads).train()
    options = {"fused": True} if fused else {}
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.lr, weight_decay=1e-3, **options)
    grid = torch.rand(batch, 4, *[encoder.resolution] * 3)
    valid = torch.ones_like(grid[:, :1])

    def run() -> None:
        optimizer.zero_grad()
        model(grid, valid).backward()
        torch.nn.utils.clip_grad_norm_(parameters, recipe.optim.clip_grad)
        optimizer.step()

    return run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    check_plain()
    keys = [f"model.encoder.resolution={options.resolution}", "model.encoder.drop_path=0"]
    recipe = config.load("volume/nerf-mae-swin-s", keys)
    sides = {
        "ours": Stepper(recipe, options.batch, torch.device("cpu")),
        "plain": plain_stepper(recipe, options.batch, fused=False),
        "plain_fused": plain_stepper(recipe, options.batch, fused=True),
    }
    times = in_turns(sides, options.rounds)
    middle = {name: statistics.median(values) for name, values in times.items()}
    figures = {
        "ratio": middle["plain"] / middle["ours"],
        "ratio_both_fused": middle["plain_fused"] / middle["ours"],
        **{f"{name}_seconds": value for name, value in middle.items()},
        "spread": {name: [min(values), max(values)] for name, values in times.items()},
        "resolution": options.resolution,
        "batch": options.batch,
        "threads": options.threads,
        "rounds": options.rounds,
    }
    print(json.dumps(figures))
    return int(options.check and figures["ratio"] < PROMISED)


if __name__ == "__main__":
    sys.exit(main())
