"""Time a VideoMAE V2 step beside a plain one in the published layout (plain_video.py).

Same sizes, masks, target and mathematics, in one process, in turns A B B A, on process CPU time.
Prints one JSON line: the plain side's time over ours (`ratio`), the same with fused AdamW on both
sides (`ratio_fused`), with the option that leaves zero-weight tokens out of the decoder
(`ratio_lean`), and, with `--dual`, VideoMAE's decoder of all hidden tokens over the running cell's.
`--check` exits 1 below 1.15, 1.25 and 1.25 for the first, third and last.

    .venv/bin/python tools/bench_video.py --rounds 3
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from typing import Any

import torch
from plain_video import PlainVideoMAE
from turns import seconds

from mimsuite import config
from mimsuite.config import Resolved
from mimsuite.masking import TokenMask, build_sampler
from mimsuite.noise import Noise
from mimsuite.train.bench import Stepper

RECIPE = "video/videomae2-vitb16"
SMALL = {
    "model.encoder.width": 384,
    "model.encoder.heads": 6,
    "model.decoder.width": 192,
    "model.decoder.heads": 3,
}
PROMISED = {"ratio": 1.15, "ratio_lean": 1.25, "ratio_dual": 1.25}
Step = Callable[[], None]


def plain_stepper(resolved: Resolved, batch: int, *, fused: bool) -> Step:
    """The plain step: forward, backward, AdamW."""
    recipe = resolved.recipe
    encoder, decoder = (getattr(recipe.model, part).model_dump() for part in ("encoder", "decoder"))
    torch.manual_seed(0)
    model = PlainVideoMAE(encoder, decoder).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05, fused=fused or None
    )
    clips = torch.randn(batch, encoder["in_channels"], *recipe.model.encoder.size)
    sampler, grid = build_sampler(recipe.mask), recipe.model.encoder.grid
    steps = iter(range(1 << 30))

    def run() -> None:
        mask = sampler.sample(Noise(0, next(steps), torch.arange(batch)), grid)
        optimizer.zero_grad()
        loss, _ = model(clips, mask.dense(), skipped(mask))
        loss.backward()
        optimizer.step()

    return run


def skipped(mask: TokenMask) -> torch.Tensor:
    """(B, N) bool, True = not decoded."""
    flags = torch.ones(len(mask.visible), mask.tokens, dtype=torch.bool)
    return flags.scatter(1, mask.ids("decoded"), False)


def ratios(slow: Step, fast: Step, rounds: int) -> tuple[list[float], float, float]:
    """Time of ``slow`` over ``fast``, a number a round, and the median seconds of each."""
    slow(), fast()  # first calls allocate
    found: list[float] = []
    times: dict[str, list[float]] = {"slow": [], "fast": []}
    for _ in range(rounds):
        a, b = seconds(fast), seconds(slow)
        b, a = b + seconds(slow), a + seconds(fast)
        found.append(b / a)
        times["fast"].append(a / 2)
        times["slow"].append(b / 2)
    return found, statistics.median(times["slow"]), statistics.median(times["fast"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dual", action="store_true", help="time dual masking of ViT-B too")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cpu, batch = torch.device("cpu"), options.batch
    base = config.load(RECIPE)
    small = config.with_overrides(base, SMALL, "benchmark")
    lean = config.with_overrides(small, {"mask.decode_visible": False}, "benchmark")
    ours = Stepper(small, batch, cpu)
    pairs: dict[str, tuple[Step, Step]] = {
        "ratio": (plain_stepper(small, batch, fused=False), ours),
        "ratio_fused": (plain_stepper(small, batch, fused=True), ours),
        "ratio_lean": (plain_stepper(small, batch, fused=False), Stepper(lean, batch, cpu)),
    }
    if options.dual:
        single = config.with_overrides(base, {"mask.decoder_ratio": 0}, "benchmark")
        pairs["ratio_dual"] = (Stepper(single, batch, cpu), Stepper(base, batch, cpu))
    figures: dict[str, Any] = {"batch": batch, "threads": options.threads}
    for name, (slow, fast) in pairs.items():
        found, slow_seconds, fast_seconds = ratios(slow, fast, options.rounds)
        figures[name] = round(statistics.median(found), 3)
        figures[f"{name}_min_max"] = [round(min(found), 3), round(max(found), 3)]
        figures[f"{name}_seconds"] = [round(slow_seconds, 3), round(fast_seconds, 3)]
    print(json.dumps(figures))
    missed = [n for n, bar in PROMISED.items() if n in figures and figures[n] < bar]
    return 1 if options.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
