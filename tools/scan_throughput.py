"""Crops a second of scans in a folder of `.nii.gz` files and in shards made of it, one process.

python tools/scan_throughput.py [--size 128] [--spacing 3]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from mimsuite import config
from mimsuite.data import open_source, views_of
from mimsuite.data.packing.pack import PackOptions, pack
from mimsuite.data.synthetic.synth import synthesise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=128, help="voxels of the longest side")
    parser.add_argument("--spacing", type=float, default=3.0, help="mm of the crops and shards")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files, shards = Path(folder, "files"), Path(folder, "shards")
        synthesise("scans", files, count=8, size=given.size)
        pack(str(files), shards, PackOptions(spacing=(given.spacing,) * 3))
        slow, fast = (crops_a_second(str(source), given.spacing) for source in (files, shards))
    print(f".nii.gz {slow:.1f} crops/s, packed {fast:.1f} crops/s: {fast / slow:.1f} times")


def crops_a_second(source: str, spacing: float, seconds: float = 5.0) -> float:
    """Random crops of the tiny recipe, each of a reading of its own."""
    recipe = config.load("volume/mae3d-tiny-phantoms", [f"augment.spacing={spacing}"]).recipe
    opened, views = open_source(source, modality="scans"), views_of(recipe)
    rng = np.random.default_rng(0)
    begun, done = time.perf_counter(), 0
    while (spent := time.perf_counter() - begun) < seconds:
        sample = opened.read(*opened.locate(done % len(opened)))
        views.train(opened.decode(sample), rng)
        done += 1
    return done / spent


if __name__ == "__main__":
    main()
