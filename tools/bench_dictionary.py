"""Time the training of a dictionary on made features: 4,096 codes, 200,000 rows of width 384.

A row is a sum of four of 1,000 random directions, with noise. Prints one JSON line: seconds on the
clock and of the processor, the largest memory, the losses of the epochs, the share of dead codes.

    .venv/bin/python tools/bench_dictionary.py --threads 2
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from mimsuite import config
from mimsuite.dictionaries.learning import learn
from mimsuite.dictionaries.rows import Rows
from mimsuite.dictionaries.scaling import Scaling

PARTS, DIRECTIONS, NOISE, BLOCK, TOKENS = 4, 1000, 0.3, 100, 100


def made(folder: Path, rows: int, width: int) -> np.ndarray:
    """(images, 100, width) float16 features in a file, as cached ones are."""
    draw = np.random.default_rng(0)
    directions = draw.normal(size=(DIRECTIONS, width)).astype(np.float32)
    shape = (rows // TOKENS, TOKENS, width)
    features = np.lib.format.open_memmap(folder / "features.npy", "w+", np.float16, shape)
    for first in range(0, len(features), BLOCK):
        block = features[first : first + BLOCK]
        count = len(block) * TOKENS
        which = draw.integers(DIRECTIONS, size=(count, PARTS))
        weights = draw.gamma(2, 1, size=(count, PARTS)).astype(np.float32)
        values = np.einsum("nk,nkd->nd", weights, directions[which])
        block[:] = (values + NOISE * draw.normal(size=values.shape)).reshape(block.shape)
    return features


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--codes", type=int, default=4096)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    resolved = config.load("image/dictionary-topk", [f"target.codes={options.codes}"])
    device = torch.device("cpu")
    with tempfile.TemporaryDirectory() as folder:
        features = made(Path(folder), options.rows, options.width)
        clock, processor = time.monotonic(), time.process_time()
        scaling = Scaling.of(features.reshape(-1, options.width))
        found = learn(Rows(features, scaling, device), options.width, resolved.recipe, 0, device)
        figures = {
            "seconds": time.monotonic() - clock,
            "cpu_seconds": time.process_time() - processor,
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "losses": found.losses,
            "dead_share": float(found.dead.float().mean()),
        }
    print(json.dumps({**vars(options), **figures}))


if __name__ == "__main__":
    main()
